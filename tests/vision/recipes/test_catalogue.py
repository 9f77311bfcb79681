"""The recipes: their names and files."""

import pytest
import yaml

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import recipe, recipes, with_files
from lightning_lottery.vision.recipes.catalogue import FOLDER
from tests.helpers.scripts import ROOT


def test_every_recipe_has_files_that_are_all_there_and_every_file_is_of_a_recipe():
    used = {path for entry in recipes() for path in entry.configs}
    assert used == {path for path in FOLDER.rglob("*.yaml") if path.name != "index.yaml"}
    assert all(path.exists() for path in used)
    names = [entry.name for entry in recipes()]
    assert len(set(names)) == len(names)
    for entry in recipes():
        paper, network, *method = entry.name.split("/")
        assert entry.configs[0] == FOLDER / "base.yaml"
        assert FOLDER / paper / f"{network}.yaml" in entry.configs
        assert not method or entry.configs[-1] == FOLDER / paper / f"{method[0]}.yaml"


def test_every_paper_of_the_index_is_known_except_our_own_protocols():
    without = {entry.name.partition("/")[0] for entry in recipes() if entry.paper is None}
    assert without == {"small"}


def test_a_recipe_says_what_was_published():
    late = recipe("renda2020/resnet20/late")
    assert late.paper.arxiv == "2003.02389"
    assert late.published.values[0.2097].mean == 0.9174
    assert recipe("tanaka2020/vgg16").published.values[0.01].mean == 0.901
    assert recipe("frankle2019/lenet").published is None


def test_the_files_are_in_the_examples():
    configs = ROOT / "examples" / "configs"
    assert {path.relative_to(configs) for path in configs.rglob("*.yaml")} == {
        path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml")
    }
    content = yaml.safe_load((configs / "renda2020" / "late.yaml").read_text())
    assert content["trainer"]["callbacks"][-1]["init_args"] == {"rewind": "12 epochs"}


def test_words_of_recipes_become_their_files():
    files = [str(path) for path in recipe("renda2020/resnet20/late").configs]
    pairs = [word for path in files for word in ("--config", path)]
    assert len(files) == 4
    assert with_files(["fit", "--config", "recipe:renda2020/resnet20/late", "--x=1"]) == ["fit", *pairs, "--x=1"]
    assert with_files(["fit", "--config=recipe:renda2020/resnet20/late"]) == ["fit", *pairs]
    assert with_files(["-c", "recipe:renda2020/resnet20/late", "--config", "own.yaml"]) == [
        *(word for path in files for word in ("-c", path)),
        *("--config", "own.yaml"),
    ]
    assert with_files(["fit", "--model.name=a=b"]) == ["fit", "--model.name=a=b"]


def test_an_unknown_recipe_is_named_with_similar_ones():
    with pytest.raises(ConfigurationError, match=r"'renda2020/resnet2' is not a recipe. .*renda2020/resnet20"):
        with_files(["fit", "--config", "recipe:renda2020/resnet2"])
    with pytest.raises(
        ConfigurationError, match=r"'qqq' is not a recipe. .*`lightning-lottery recipes` lists all"
    ):
        recipe("qqq")

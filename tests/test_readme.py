"""What README shows runs as written."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Model, loaders, needs, quiet_trainer
from torch import nn

from lightning_lottery import LotteryTicketCallback, Ticket

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_of_readme_runs(digits, monkeypatch):
    """With the Trainer that it makes kept short, and a ticket where it expects one."""
    usage, ticket, _ = blocks("python")
    train, val = loaders(digits)
    names = {"model": Model(nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10)))}
    usage = usage.replace("datamodule=data", "train, val").replace(
        "max_epochs=10", "max_epochs=1, accelerator='cpu'"
    )
    exec(usage, names | {"train": train, "val": val})
    loaded: list[Ticket] = []
    load = Ticket.load
    monkeypatch.setattr(Ticket, "load", lambda path: loaded.append(load(path)) or loaded[-1])
    exec(ticket, names)
    assert loaded[0].round == 3


def test_the_control_of_readme_works(digits):
    names: dict[str, object] = {"__name__": "readme"}
    exec(blocks("python")[2], names)
    control = names["FlipSigns"]()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[control], verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    ticket, flipped = lottery.tickets[1], lottery.tickets["flip_signs"][1]
    name = "network.hidden.weight"
    assert (flipped.weights[name] == -ticket.weights[name]).all()
    assert flipped.kept == ticket.kept


def test_the_yaml_of_readme_is_that_of_the_example():
    (shown,) = map(yaml.safe_load, blocks("yaml"))
    example = yaml.safe_load((ROOT / "examples" / "mnist.yaml").read_text())
    assert shown["trainer"] == example["trainer"]


def test_ci_installs_what_readme_says():
    for command in (block for block in blocks("sh") if "venv .venv" in block):
        torch_pins = "torch==2.14.1 torchvision==0.29.1"
        assert torch_pins in command
        assert torch_pins in (ROOT / ".ci" / "run").read_text()


def test_the_example_script_runs(monkeypatch, capsys):
    needs("sklearn")
    monkeypatch.setattr(sys, "argv", ["own_model.py"])
    runpy.run_path(str(ROOT / "examples" / "own_model.py"), run_name="__main__")
    assert "digits_ticket.safetensors: round" in capsys.readouterr().out
    assert Ticket.load("digits_ticket.safetensors").density < 1


@pytest.mark.slow
def test_the_benchmark_runs():
    script = ROOT / "benchmarks" / "loader.py"
    command = [sys.executable, str(script), "--repeats", "1", "--epochs", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"\| TensorLoader \| [\d.]+ \| 1.00 ", printed)
    assert re.search(r"\| torchvision \+ ToTensor \+ DataLoader \| [\d.]+ \| [\d.]+ ", printed)

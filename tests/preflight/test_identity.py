"""Which run is resumed, and which is refused."""

import shutil
import warnings
from contextlib import nullcontext

import pytest
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torchmetrics import MetricTracker
from torchmetrics.classification import MulticlassAccuracy

from lightning_lottery import ConfigurationError, LotteryTicketCallback, Reinitialize, ShuffleMask
from lightning_lottery.rules.settings import described
from tests.helpers.fits import Model, Spy, loaders, quiet_trainer
from tests.helpers.resuming import Stop, build, interrupted


@pytest.mark.parametrize("logger", ["none", "csv", "tensorboard", "sub_dir", "named version", "no version"])
def test_the_run_is_found_where_it_was_started(digits, tmp_path, monkeypatch, logger):
    make = {
        "none": lambda: False,
        "csv": lambda: CSVLogger(".", "logs"),
        "tensorboard": lambda: TensorBoardLogger(".", "logs"),
        "sub_dir": lambda: TensorBoardLogger(".", "logs", sub_dir="inside"),
        "named version": lambda: TensorBoardLogger(".", "logs", version="fold1/seed0"),
        "no version": lambda: CSVLogger(".", "logs", version=""),
    }[logger]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "lottery.py").touch()

    def fit(folder, max_epochs=1):
        monkeypatch.chdir(tmp_path / folder)
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        trainer = quiet_trainer(callbacks=[lottery], logger=make(), max_epochs=max_epochs)
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
        return lottery.run_folder

    first = fit("a")
    assert fit("a").samefile(first)
    assert not fit("a", max_epochs=2).samefile(first)
    assert tmp_path / "b" in fit("b").resolve().parents


def test_different_seeds_are_different_runs(digits, monkeypatch):
    folders = []
    for seed in (1, 2, 1):
        seed_everything(seed, verbose=False)
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        trainer = quiet_trainer(callbacks=[lottery], max_epochs=1)
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
        folders.append(lottery.run_folder.name)
    assert folders == ["lottery", "lottery_1", "lottery"]


def test_another_experiment_starts_its_own_run(digits, tmp_path):
    for amount, expected in ((0.5, "lottery"), (0.3, "lottery_1"), (0.5, "lottery")):
        lottery = LotteryTicketCallback(rounds=1, amount=amount, verbose=False)
        trainer = quiet_trainer(callbacks=[lottery], max_epochs=1)
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
        assert lottery.run_folder.name == expected
        assert len(lottery.records) == 2


def test_fast_dev_run_does_not_touch_the_run(digits, tmp_path):
    interrupted(digits, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "run", verbose=False)
    trainer = quiet_trainer(callbacks=[lottery], fast_dev_run=True)
    trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
    assert len(lottery.records) == 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class WithHyperparameters(Model):
    def __init__(self, lr):
        super().__init__()
        self.save_hyperparameters()


def refused(digits, path, message, model=None, trainer=None, **arguments):
    spy = Spy()
    options = {"densities": [0.5, 0.2], "monitor": "val_acc", "mode": "max", "verbose": False, **arguments}
    lottery = LotteryTicketCallback(**options)
    with pytest.raises(ConfigurationError, match=message):
        quiet_trainer(callbacks=[lottery, spy], **(trainer or {})).fit(
            model or Model(), *loaders(digits), ckpt_path=path
        )
    assert not spy.starts


def test_other_arguments_network_or_trainer_are_refused_with_the_differences(digits, tmp_path):
    path = interrupted(digits, tmp_path)
    before = (tmp_path / "run" / "rounds.jsonl").read_bytes()
    controls = "controls was .*Reinitialize.* and is now \\[\\]"
    refused(digits, path, controls)
    refused(digits, path, "densities was \\[0.5, 0.2\\] and is now \\[0.5, 0.3\\]", densities=[0.5, 0.3])
    refused(digits, path, r"rewind was 'ToInit\(\)' and is now .ToStep\(step='3 steps'", rewind="3 steps")
    refused(digits, path, "max_epochs was 2 and is now 3", trainer={"max_epochs": 3})
    refused(digits, path, "lr was None and is now '0.1'", model=WithHyperparameters(lr=0.1))
    other = nn.Sequential(nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10))
    with pytest.raises(RuntimeError, match=r"size mismatch|Missing key"):  # Lightning itself checks first
        refused(digits, path, "", model=Model(other))
    refused(digits, path, "but there is none. If the folder has moved", dirpath=tmp_path / "nowhere")
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == before


def test_a_checkpoint_of_another_run_is_refused(digits, tmp_path):
    first, second = interrupted(digits, tmp_path / "a"), tmp_path / "b"
    interrupted(digits, second)
    trainer, model, data, _ = build(second, "steps", digits)
    with pytest.raises(ConfigurationError, match="does not belong to the run"):
        trainer.fit(model, *data, ckpt_path=first)


def test_masks_that_do_not_belong_to_the_checkpoint_are_refused(digits, tmp_path):
    path = interrupted(digits, tmp_path)
    tickets = tmp_path / "run" / "tickets"
    shutil.copy(tickets / "round_00.safetensors", tickets / "round_01.safetensors")
    trainer, model, data, _ = build(tmp_path, "steps", digits)
    with pytest.raises(
        Exception, match="The masks of round_01 in the run folder differ from those of the checkpoint"
    ):
        trainer.fit(model, *data, ckpt_path=path)


def test_functions_among_arguments_and_hparams_are_the_same_in_another_process(digits):
    class Hyper(Model):
        def __init__(self, activation):
            super().__init__()
            self.save_hyperparameters()

    def fit(*others):
        # New functions with new addresses, as in another process.
        control = Reinitialize(initialize=lambda module: [nn.init.normal_(p) for p in module.parameters()])
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[control], verbose=False)
        trainer = quiet_trainer(callbacks=[lottery, *others], max_epochs=1)
        path = lottery.resume(trainer)
        model = Hyper(activation=lambda x: x)
        alive.append((control, model))
        trainer.fit(model, *loaders(digits), ckpt_path=path)
        return lottery

    alive: list[object] = []  # so that no address is reused
    with pytest.raises(ZeroDivisionError):
        fit(Stop(1))
    lottery = fit()
    assert lottery.run_folder.name == "lottery"
    assert len(lottery.records) == 3


def test_no_wrong_warning_is_shown(digits, tmp_path):
    """An epoch resumes exactly, and checkpoint callbacks keep their state, also in another folder."""
    path = interrupted(digits, tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer, model, data, _ = build(tmp_path, "steps", digits)
        trainer.checkpoint_callback.dirpath = str(tmp_path / "elsewhere")
        trainer.fit(model, *data, ckpt_path=path)
        warnings.warn("of others", stacklevel=1)
    messages = [str(warning.message) for warning in said]
    assert not [message for message in messages if "resuming from" in message or "dirpath has changed" in message]
    assert "of others" in messages


def test_a_run_whose_epochs_another_callback_lengthens_is_found(digits):
    for stop in ([Stop(1)], []):
        swa = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1)
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        trainer = quiet_trainer(callbacks=[swa, lottery, *stop])
        with pytest.raises(ZeroDivisionError) if stop else nullcontext():
            trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
    assert lottery.run_folder.name == "lottery"


def test_a_trainer_with_other_validation_or_clipping_is_refused(digits, tmp_path):
    path = interrupted(digits, tmp_path)
    for options, message in [
        ({"gradient_clip_val": 0.1}, "gradient_clip_val was 'None' and is now '0.1'"),
        ({"limit_train_batches": 3}, "limit_train_batches was '1.0' and is now '3'"),
        ({"val_check_interval": 2}, "val_check_interval was '1.0' and is now '2'"),
    ]:
        refused(
            digits, path, message, trainer=options, controls=[Reinitialize(), ShuffleMask()], control_rounds=[2]
        )


def test_sets_are_the_same_in_every_order():
    assert described({"b", "a", "c"}) == described({"c", "b", "a"}) == "{'a', 'b', 'c'}"


def test_a_round_with_layers_added_during_training_restarts(digits, tmp_path, capsys):
    class Tracking(Model):
        def __init__(self):
            super().__init__()
            self.tracker = MetricTracker(MulticlassAccuracy(10), maximize=True)

        def on_validation_epoch_start(self):
            self.tracker.increment()

        def validation_step(self, batch, batch_idx):
            self.tracker.update(self.network(batch[0]).argmax(1), batch[1])

        def on_validation_epoch_end(self):
            self.log("best", float(self.tracker.best_metric()), prog_bar=False)
            self.log("seen", float(len(self.tracker)), prog_bar=False)

    records = {}
    for name, stops in (("whole", [None]), ("resumed", [Stop(1, 10), None])):
        for stop in stops:
            lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / name)
            callbacks = [lottery, ModelCheckpoint(tmp_path / f"{name}_checkpoints"), *([stop] if stop else [])]
            trainer = quiet_trainer(
                callbacks=callbacks, max_epochs=3, enable_checkpointing=True, num_sanity_val_steps=0
            )
            seed_everything(3)
            with pytest.raises(ZeroDivisionError) if stop else nullcontext():
                trainer.fit(Tracking(), *loaders(digits), ckpt_path=lottery.resume(trainer))
        records[name] = [(record.metrics["best"], record.metrics["seen"]) for record in lottery.records]
    assert records["whole"] == records["resumed"]
    assert "restarts: the layers ['tracker." in capsys.readouterr().out

"""The Trainer's features in rounds: one test per row of docs/how-to/works-with.md."""

import copy
import inspect
import json
import os
import time
import types
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer, callbacks
from lightning.pytorch.callbacks import timer
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.rounds import Rounds, accuracy, monitoring, network_of, rounds, same_training, sums


def test_reload_dataloaders_every_n_epochs(digits):
    images, labels = digits

    class Growing(Model):
        """Other images in every epoch."""

        def train_dataloader(self):
            part = slice(100 * self.trainer.current_epoch, 100 * self.trainer.current_epoch + 100)
            return DataLoader(TensorDataset(images[part], labels[part]), 50)

        def val_dataloader(self):
            return loaders(digits)[1]

    run = rounds(digits, Growing(), data=tuple, reload_dataloaders_every_n_epochs=1, max_epochs=3)
    run.check(steps=6)
    assert run.spy.order == [sums(images[:300], 50)] * 3


class Stream(IterableDataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __iter__(self):
        return zip(self.images[:200], self.labels[:200], strict=True)


def test_iterable_data(digits):
    run = rounds(digits, data=lambda: (DataLoader(Stream(*digits), 32), loaders(digits)[1]))
    run.check(steps=14)
    assert run.spy.order == [sums(digits[0][:200], 32) * 2] * 3
    run.check_fresh()


@pytest.mark.filterwarnings("ignore:.*overfit.*")
def test_overfit_batches(digits):
    run = rounds(digits, overfit_batches=2)
    run.check(steps=4)
    assert run.spy.order == [sums(digits[0][:64], 32) * 2] * 3


def test_limit_batches(digits):
    images, labels = digits
    for limits in ((3, 1), (0.5, 0.5)):
        options = {"limit_train_batches": limits[0], "limit_val_batches": limits[1]}
        run = rounds(digits, lottery=monitoring(), **options)
        run.check(steps=2 * 3)
        for record, end in zip(run.lottery.records, run.spy.ends, strict=True):
            expected = accuracy(end, images[-200:-100], labels[-200:-100])
            assert record.metrics["val_acc"] == pytest.approx(expected, abs=1e-6)


def test_fast_dev_run(digits):
    run = rounds(digits, fast_dev_run=2)
    run.check(steps=2)
    assert list(Path().iterdir()) == [], "a trial leaves no files"


def test_max_time(digits, monkeypatch):
    class OneSecondEach(Callback):
        def on_train_batch_end(self, *_):
            clock[0] += 1

    clock, others = [0.0], lambda: [OneSecondEach()]
    monkeypatch.setattr(timer, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    whole = rounds(digits, max_epochs=1)
    run = rounds(digits, copy.deepcopy(whole.untouched), others=others, max_epochs=1, max_time={"seconds": 17})
    assert run.spy.steps == [7, 7, 3]
    assert [record.steps for record in run.lottery.records] == [7, 7]
    lines = (run.lottery.run_folder / "rounds.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert all(same_bits(run.spy.ends[number], whole.spy.ends[number]) for number in (0, 1))
    assert same_bits(run.lottery.tickets[2].masks, whole.lottery.tickets[2].masks)


def test_max_steps(digits):
    for options, steps in (({"max_steps": 9}, 9), ({"max_steps": 9, "max_epochs": 1}, 7)):
        run = rounds(digits, **{"max_epochs": -1, **options})
        run.check(steps)
        run.check_fresh()


def test_val_check_interval(digits):
    class Validated(Callback):
        def on_validation_start(self, trainer, pl_module):
            if not trainer.sanity_checking:
                value = accuracy(copied(pl_module), images[-200:], labels[-200:])
                seen[len(lottery.records)].append((trainer.global_step, value))

    def data():
        return loaders(digits, train=256)

    images, labels = digits
    seen: list[list[tuple[int, float]]] = [[], [], []]
    lottery, options = monitoring(mode="min"), {"val_check_interval": 0.25, "max_epochs": 1}
    run = rounds(digits, data=data, others=lambda: [Validated()], lottery=lottery, **options)
    run.check(steps=8)
    for record, validated in zip(run.lottery.records, seen, strict=True):
        assert [step for step, _ in validated] == [2, 4, 6, 8]
        step, best = min(validated, key=lambda pair: pair[1])  # the first ones, since it learns
        assert (record.best_step, record.best_value) == (step, pytest.approx(best, abs=1e-6))


@pytest.mark.filterwarnings("ignore:.*barebones.*")
@pytest.mark.parametrize("interval", [timedelta(seconds=2), "00:00:00:02", {"seconds": 2}])
def test_val_check_interval_as_a_time(digits, monkeypatch, interval):
    if "timedelta" not in str(inspect.signature(Trainer).parameters["val_check_interval"].annotation):
        pytest.skip("This version of Lightning has no validation by the clock.")
    now = [0.0]

    class Clock(callbacks.Callback):
        def on_train_batch_start(self, *_):
            now[0] += 0.7

        def on_validation_start(self, trainer, pl_module):
            if not trainer.sanity_checking:
                validations.append((len(lottery.records), trainer.fit_loop.epoch_loop.total_batch_idx + 1))

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    validations: list[tuple[int, int]] = []
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Clock()], val_check_interval=interval, max_epochs=2)
    trainer.fit(Model(), *loaders(digits))
    batches = [3, 6, 9, 12]  # 2.1 seconds each
    assert validations == [(number, batch) for number in range(3) for batch in batches]
    description = json.loads((lottery.run_folder / "lottery.json").read_text())
    assert description["trainer"]["val_check_interval"] == "'2.0 s'"


def test_barebones(digits):
    run = rounds(digits, barebones=True)
    run.check(steps=14)
    assert same_training(run, rounds(digits, copy.deepcopy(run.untouched), num_sanity_val_steps=0))


def test_enable_checkpointing_false(digits):
    runs = []
    for enabled in (True, False):
        options = {"enable_checkpointing": enabled, "default_root_dir": str(enabled)}
        runs.append(rounds(digits, copy.deepcopy(runs[0].untouched) if runs else None, **options))
        runs[-1].check(steps=14)
    assert same_training(*runs)
    folders = sorted(path.parent.name for path in Path("True").rglob("*.ckpt"))
    assert folders == ["round_00", "round_01", "round_02"]
    assert not list(Path("False").rglob("*.ckpt"))
    assert len(list(Path("False").rglob("round_*.safetensors"))) == 3


def test_fit_twice(digits, capsys):
    run = rounds(digits)
    records, masks = list(run.lottery.records), run.lottery.tickets[2].masks
    capsys.readouterr()
    run.trainer.fit(run.model, *loaders(digits))
    assert "Nothing was trained, since the Trainer has already reached its limits" in capsys.readouterr().out
    run.check(steps=14)
    assert list(run.lottery.records) == records
    assert same_bits(run.lottery.tickets[2].masks, masks)


def test_test_and_predict_after_fit(digits):
    class Whole(Model):
        def test_step(self, batch, batch_idx):
            right = (self.network(batch[0]).argmax(1) == batch[1]).float().mean()
            self.log("test_acc", right, batch_size=len(batch[0]))

        def predict_step(self, batch, batch_idx):
            return self.network(batch[0])

    images, labels = digits[0][300:450], digits[1][300:450]
    run = rounds(digits, Whole())
    data = DataLoader(TensorDataset(images, labels), 60)
    tested = run.trainer.test(run.model, data, verbose=False)
    predicted = torch.cat(run.trainer.predict(run.model, data))
    run.check(steps=14)
    values = [accuracy(end, images, labels) for end in run.spy.ends]
    assert tested == [{"test_acc": pytest.approx(values[2], abs=1e-6)}]
    with torch.no_grad():
        torch.testing.assert_close(predicted, network_of(run.spy.ends[2])(images))
        assert not torch.allclose(predicted, network_of(run.spy.ends[1])(images), atol=1e-3)


def test_deep_copy_of_the_callback(digits):
    lottery = monitoring()
    runs = [rounds(digits, lottery=copy.deepcopy(lottery))]
    assert len(lottery.records) == 0
    assert lottery.run_folder is None
    first, records = runs[0].lottery, list(runs[0].lottery.records)
    runs.append(rounds(digits, Model(), lottery=copy.deepcopy(first)))
    for run, folder in zip(runs, ("lottery", "lottery_1"), strict=True):
        assert run.lottery.run_folder.name == folder
        run.check(steps=14)
    assert list(first.records) == records
    assert not same_bits(first.tickets[2].masks, runs[1].lottery.tickets[2].masks)


def test_same_callback_in_a_second_trainer(digits):
    lottery = monitoring()
    first = rounds(digits, lottery=lottery)
    first.check(steps=14)
    folder = first.lottery.run_folder
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    second = rounds(digits, Model(), lottery=lottery, max_epochs=1)
    second.check(steps=7)
    second.check_fresh()
    assert lottery.run_folder != folder
    assert files == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Tunable(Model):
    def __init__(self, digits, network):
        super().__init__(network)
        self.digits, self.lr, self.batch_size = digits, 0.05, 16

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)

    def train_dataloader(self):
        return loaders(self.digits, batch_size=self.batch_size)[0]

    def val_dataloader(self):
        return loaders(self.digits)[1]


def test_tuner_before_fit(digits):
    model = Tunable(digits, Net())
    untuned = Rounds(model, tuple, options={"enable_checkpointing": True})
    tuner = Tuner(untuned.trainer)
    found = tuner.lr_find(model, num_training=30, min_lr=1e-3).suggestion()
    tuner.scale_batch_size(model, max_trials=2, steps_per_trial=1, init_val=20)
    assert model.lr == found != 0.05
    assert model.batch_size in (40, 80)  # by version of Lightning
    assert same_bits(copied(model), untuned.initial)
    assert untuned.spy.events == []
    tuned = untuned.fit()
    tuned.check(steps=2 * (200 // model.batch_size + bool(200 % model.batch_size)))
    plain = Tunable(digits, copy.deepcopy(untuned.untouched.network))
    plain.lr, plain.batch_size = model.lr, model.batch_size
    assert same_training(tuned, rounds(digits, plain, tuple))


def test_profiler(digits):
    run = rounds(digits, profiler="simple")
    run.check(steps=14)
    durations = run.trainer.profiler.recorded_durations
    assert len(durations["run_training_batch"]) == 3 * 14
    assert len(durations["[Callback]Spy.on_train_start"]) == 3
    assert same_training(run, rounds(digits, copy.deepcopy(run.untouched)))


def test_early_stopping(digits):
    class Scripted(Model):
        def validation_step(self, batch, batch_idx):
            epoch = 0 if self.trainer.sanity_checking else self.trainer.current_epoch
            self.log("score", scores[len(lottery.records)][epoch])

    def others():
        return [callbacks.EarlyStopping("score", mode="max", patience=2)]

    scores = [[5.0, 6, 4, 3, 2], [3.0, 2, 1, 0, 0], [1.0, 2, 3, 4, 5]]
    lottery = monitoring(monitor="score")
    run = rounds(digits, Scripted(), others=others, lottery=lottery, max_epochs=5)
    run.check(steps=[4 * 7, 3 * 7, 5 * 7])
    assert [record.best_value for record in run.lottery.records] == [6, 3, 5]
    assert [record.best_step for record in run.lottery.records] == [2 * 7, 7, 5 * 7]


def test_two_val_dataloaders(digits):
    class Two(Model):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            super().validation_step(batch, batch_idx)

    images, labels = digits
    parts = slice(500, 600), slice(700, 900)

    def data():
        vals = [DataLoader(TensorDataset(images[part], labels[part]), 50) for part in parts]
        return loaders(digits)[0], vals

    lottery = monitoring(monitor="val_acc/dataloader_idx_1")
    run = rounds(digits, Two(), data, lottery=lottery)
    run.check(steps=14)
    for record, end in zip(lottery.records, run.spy.ends, strict=True):
        values = [accuracy(end, images[part], labels[part]) for part in parts]
        found = [record.metrics[f"val_acc/dataloader_idx_{index}"] for index in (0, 1)]
        assert found == pytest.approx(values, abs=1e-6)
        assert record.best_value >= found[1]


class Where(TensorDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image, label, os.getpid()


def test_num_workers(digits):
    class Workers(Model):
        def training_step(self, batch, batch_idx):
            seen.update(batch[2].tolist())
            return super().training_step(batch[:2], batch_idx)

    images, labels = digits[0][:200], digits[1][:200]
    network, runs = Net(), []
    for options in ({}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}):
        seen: set[int] = set()

        def data(options=options):
            everything = Where(images, labels)
            shuffled = RandomSampler(everything, generator=torch.Generator().manual_seed(5))
            return DataLoader(everything, 32, sampler=shuffled, **options), loaders(digits)[1]

        runs.append(rounds(digits, Workers(copy.deepcopy(network)), data))
        runs[-1].check(steps=14)
        assert (os.getpid() in seen) == (not options)
        assert runs[-1].spy.order == [runs[0].spy.order[0]] * 3
        assert same_training(runs[-1], runs[0])

"""Other callbacks inside a fit of many rounds."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, callbacks
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger

from lightning_lottery import LotteryTicketCallback, Reinitialize, ShuffleMask
from tests.helpers.fits import Model, Net, Spy, copied, loaders, quiet_trainer, same_bits


@pytest.mark.parametrize("lottery_first", [True, False])
def test_every_callback_sees_start_and_end_once_a_round(digits, lottery_first):
    spy = Spy()
    lottery = LotteryTicketCallback(
        rounds=3, amount=0.5, controls=[Reinitialize(), ShuffleMask()], control_rounds=[2], verbose=False
    )
    order = [lottery, spy] if lottery_first else [spy, lottery]
    quiet_trainer(callbacks=order).fit(Model(), *loaders(digits))
    assert spy.events == ["start", "end"] * 6
    assert spy.steps == [14] * 6


def test_the_module_contains_the_trained_last_ticket_with_its_metrics(digits):
    for controls in ([], [ShuffleMask(), Reinitialize()]):
        spy = Spy()
        lottery = LotteryTicketCallback(
            rounds=2, amount=0.7, controls=controls, monitor="val_acc", mode="max", verbose=False
        )
        model = Model()
        checkpoint = ModelCheckpoint(monitor="val_acc", mode="max")
        trainer = quiet_trainer(callbacks=[lottery, spy, checkpoint], enable_checkpointing=True)
        trainer.fit(model, *loaders(digits))
        assert same_bits(copied(model), spy.ends[2])
        assert trainer.callback_metrics["val_acc"] == pytest.approx(lottery.records[2].metrics["val_acc"])
        assert Path(checkpoint.best_model_path).parent.name == "round_02"
        assert checkpoint.best_model_score == pytest.approx(lottery.records[2].best_value)
        tested = trainer.validate(model, loaders(digits)[1], verbose=False)[0]["val_acc"]
        assert tested == pytest.approx(lottery.records[2].metrics["val_acc"])


def test_buffers_that_are_not_saved_are_those_of_the_last_ticket_too(digits):
    class Summing(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("sum", torch.zeros(()), persistent=False)

        def forward(self, images):
            logits = super().forward(images)
            self.sum += logits.detach().sum() * self.training
            return logits

    class Sums(Callback):
        def on_train_end(self, trainer, pl_module):
            sums.append(float(pl_module.network.sum))

    sums: list[float] = []
    lottery = LotteryTicketCallback(rounds=1, amount=0.7, controls=[ShuffleMask()], verbose=False)
    model = Model(Summing())
    quiet_trainer(callbacks=[lottery, Sums()], max_epochs=1).fit(model, *loaders(digits))
    assert len(set(sums)) == 3
    assert float(model.network.sum) == sums[1]


def test_controls_are_recorded_beside_the_tickets(digits):
    lottery = LotteryTicketCallback(
        rounds=3, amount=0.5, controls=[Reinitialize(), ShuffleMask()], control_rounds=[3, 1], verbose=False
    )
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    assert [(r.round, r.branch) for r in lottery.records][4:] == [
        (1, "reinitialize"),
        (1, "shuffle_mask"),
        (3, "reinitialize"),
        (3, "shuffle_mask"),
    ]
    dense, ticket = lottery.tickets[0], lottery.tickets[3]
    fresh, shuffled = lottery.tickets["reinitialize"][3], lottery.tickets["shuffle_mask"][3]
    assert same_bits(fresh.masks, ticket.masks)
    assert not torch.equal(fresh.weights["network.hidden.weight"], ticket.weights["network.hidden.weight"])
    assert shuffled.layer_densities() == ticket.layer_densities()
    assert not same_bits(shuffled.masks, ticket.masks)
    for name, mask in shuffled.masks.items():
        assert torch.equal(shuffled.weights[name][mask], dense.weights[name][mask])
    assert lottery.records["shuffle_mask"][3].kept == lottery.records[3].kept
    assert lottery.records["reinitialize"][3].masks_hash == lottery.records[3].masks_hash


def test_early_stopping_starts_over_in_each_round(digits):
    """Every round starts with full patience."""

    class Scripted(Model):
        def validation_step(self, batch, batch_idx):
            values = [0.5, 0.6, 0.4, 0.3, 0.2, 0.1]  # the best comes second, then patience runs out
            self.log("score", values[self.trainer.current_epoch])

    stopper = EarlyStopping("score", mode="max", patience=2)
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, monitor="score", mode="max", verbose=False)
    trainer = quiet_trainer(callbacks=[stopper, lottery], max_epochs=6)
    trainer.fit(Scripted(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [4 * 7] * 3
    assert [record.best_value for record in lottery.records] == pytest.approx([0.6] * 3)
    assert [record.best_step for record in lottery.records] == [2 * 7] * 3
    assert stopper.stopped_epoch == 3


@pytest.mark.parametrize(("values", "step"), [([1.0, 3.0, 2.0], 14), ([1.0, 2.0, 3.0], 21)])
def test_metrics_logged_at_the_very_end_of_an_epoch_are_monitored_at_the_right_step(digits, values, step):
    class Late(Model):
        def on_train_epoch_end(self):
            self.log("late", values[self.trainer.current_epoch])

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, monitor="late", mode="max", verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=3).fit(Late(), *loaders(digits))
    assert [(r.best_value, r.best_step, r.metrics["late"]) for r in lottery.records] == [
        (3.0, step, values[-1])
    ] * 2


def test_checkpoints_of_all_rounds_stay_and_belong_to_their_round(digits, tmp_path):
    lottery = LotteryTicketCallback(
        rounds=2, amount=0.6, controls=[ShuffleMask()], control_rounds=[1], verbose=False
    )
    best = ModelCheckpoint(tmp_path / "best", monitor="val_loss", save_last=True)
    steps = ModelCheckpoint(tmp_path / "steps", every_n_train_steps=5, save_top_k=-1)
    trainer = quiet_trainer(callbacks=[lottery, best, steps], enable_checkpointing=True)
    trainer.fit(Model(), *loaders(digits))
    folders = ["round_00", "round_01", "round_01_shuffle_mask", "round_02"]
    for kind, count in (("best", 2), ("steps", 2)):
        assert sorted(path.name for path in (tmp_path / kind).glob("round_*")) == folders
        for path in (tmp_path / kind).glob("round_*"):
            files = list(path.glob("*.ckpt"))
            assert len(files) == count, files
            for file in files:
                state = torch.load(file, weights_only=False)["state_dict"]
                number, _, branch = path.name.removeprefix("round_").partition("_")
                masks = (lottery.tickets[branch] if branch else lottery.tickets)[int(number)].masks
                for name, mask in masks.items():
                    assert not state[name][~mask].any()
                    assert state[name][mask].all()
    assert Path(best.last_model_path).parent.name == "round_02"
    assert (tmp_path / "best" / "last.ckpt").resolve() == Path(best.last_model_path)  # not the control's
    assert (best.dirpath, steps.dirpath) == (str(tmp_path / "best"), str(tmp_path / "steps"))
    plain = Model()  # a checkpoint is that of the plain model
    plain.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])


def test_checkpoint_folders_do_not_nest_when_callbacks_serve_a_second_trainer(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=1, amount=0.6, verbose=False)
    checkpoint = ModelCheckpoint(tmp_path / "here")
    for _ in range(2):
        trainer = quiet_trainer(callbacks=[lottery, checkpoint], enable_checkpointing=True, max_epochs=1)
        trainer.fit(Model(), *loaders(digits))
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["round_00", "round_01"]
    assert not [path for path in (tmp_path / "here").rglob("round_*") if path.parent.name.startswith("round_")]


def test_learning_rates_are_monitored_per_round(digits):
    class Rates(Callback):
        def on_train_end(self, trainer, pl_module):
            seen.append(list(monitor.lrs["lr-SGD"]))

    seen: list[list[float]] = []
    monitor = LearningRateMonitor("step")
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, monitor, Rates()], logger=CSVLogger("."), log_every_n_steps=1)
    trainer.fit(Model(scheduler="step"), *loaders(digits))
    assert len(seen) == 3
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == 0.1
    assert seen[0][-1] == pytest.approx(0.1 * 0.7**2)


def test_accumulation_schedules_start_over(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    schedule = GradientAccumulationScheduler({1: 7})
    trainer = quiet_trainer(callbacks=[lottery, schedule])
    trainer.fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [7 + 1] * 3


AVERAGES = {
    "swa": lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1),
    **(
        {"ema": lambda: callbacks.EMAWeightAveraging(decay=0.9)}
        if hasattr(callbacks, "EMAWeightAveraging")
        else {}
    ),
}


@pytest.mark.parametrize("kind", AVERAGES)
@pytest.mark.parametrize("lottery_first", [True, False])
def test_weight_averages_never_bring_pruned_weights_back_and_are_pruned(digits, kind, lottery_first):
    lottery = LotteryTicketCallback(rounds=2, amount=0.6, verbose=False)
    spy = Spy()
    order = [lottery, AVERAGES[kind]()] if lottery_first else [AVERAGES[kind](), lottery]
    model = Model()
    trainer = quiet_trainer(callbacks=[*order, spy], max_epochs=3)
    trainer.fit(model, *loaders(digits))
    assert len(set(spy.steps)) == 1
    assert spy.events == ["start", "end"] * 3
    for number in (0, 1):  # the average is what is pruned
        weights = {name: spy.ends[number][name].abs() for name in lottery.tickets[0].masks}
        kept, gone = [], []
        for name, mask in lottery.tickets[number + 1].masks.items():
            kept.append(weights[name][mask])
            gone.append(weights[name][lottery.tickets[number].masks[name] & ~mask])
        assert torch.cat(gone).max() <= torch.cat(kept).min()
    for name, mask in lottery.tickets[2].masks.items():
        assert not dict(model.named_parameters())[name][~mask].any()


def test_gradients_changed_by_another_callback_are_masked(digits):
    class Noise(Callback):
        def on_after_backward(self, trainer, pl_module):
            for parameter in pl_module.parameters():
                parameter.grad.add_(0.01 * torch.randn_like(parameter))

    for order in (0, 1):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        callbacks = [lottery, Noise()] if order else [Noise(), lottery]
        model = Model()
        quiet_trainer(callbacks=callbacks, max_epochs=1).fit(model, *loaders(digits))
        for name, mask in lottery.tickets[1].masks.items():
            assert not dict(model.named_parameters())[name][~mask].any()


def test_the_state_of_a_callback_is_rewound(digits):
    class Counter(Callback):
        def __init__(self):
            self.count, self.seen = 0, []

        def on_train_batch_end(self, *_):
            self.count += 1

        def on_train_end(self, *_):
            self.seen.append(self.count)

        def state_dict(self):
            return {"count": self.count}

        def load_state_dict(self, state):
            self.count = state["count"]

    counter = Counter()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, counter]).fit(Model(), *loaders(digits))
    assert counter.seen == [14, 14, 14]


def test_the_state_of_a_data_module_is_rewound(digits):
    class Data(LightningDataModule):
        def __init__(self):
            super().__init__()
            self.seen, self.log = 0, []

        def train_dataloader(self):
            self.log.append(self.seen)
            self.seen += 1
            return loaders(digits)[0]

        def state_dict(self):
            return {"seen": self.seen}

        def load_state_dict(self, state):
            self.seen = state["seen"]

    data = Data()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1, limit_val_batches=0).fit(Model(), data)
    assert data.log == [0, 0, 0]


def test_the_learning_rate_finder_before_the_fit_works(digits):
    class Tunable(Model):
        def __init__(self):
            super().__init__()
            self.lr = 0.01

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    model = Tunable()
    initial = copied(model)
    spy = Spy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    finder = LearningRateFinder(num_training_steps=12)
    trainer = quiet_trainer(callbacks=[lottery, spy, finder], enable_checkpointing=True)
    trainer.fit(model, *loaders(digits))
    assert spy.events == ["start", "end"] * 2
    assert spy.steps == [14, 14]
    assert same_bits(lottery.tickets[0].weights, initial)


def test_the_batch_size_finder_before_the_fit_works(digits):
    class Scalable(Model):
        def __init__(self):
            super().__init__()
            self.batch_size = 8

        def train_dataloader(self):
            return loaders(digits, batch_size=self.batch_size)[0]

        def val_dataloader(self):
            return loaders(digits)[1]

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    finder = BatchSizeFinder(max_trials=2, steps_per_trial=1)
    trainer = quiet_trainer(callbacks=[lottery, spy, finder], enable_checkpointing=True)
    trainer.fit(Scalable())
    assert spy.events == ["start", "end"] * 2
    assert len(set(spy.steps)) == 1

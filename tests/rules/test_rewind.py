"""Rewinding rules are bit-equal to plain PyTorch."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, GradientAccumulationScheduler
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    FineTune,
    LearningRate,
    LotteryTicketCallback,
    Reinitialize,
    ShuffleMask,
    ToEpoch,
    ToInit,
    ToStep,
    TrainingError,
)
from lightning_lottery.rules.rewind import Point, Rewind, rewind_of
from tests.helpers.contracts import concrete
from tests.helpers.fits import LateSpy, Model, loaders, quiet_trainer, same_bits
from tests.helpers.reference_rewind import EPOCHS, experiment
from tests.helpers.resuming import Dropout

STEPS_OF_AN_EPOCH = 7


CASES = {
    "ToInit()": (ToInit(), {}, (0, 0)),
    "ToStep in an epoch": (ToStep(3), {"step": 3}, (0, 3)),
    "ToStep in the second epoch": (ToStep("10 steps"), {"step": 10}, (1, 10)),
    "ToStep at the end of an epoch": (ToStep(7), {"step": 7}, (1, 7)),
    "ToStep, fresh": (ToStep(9, optimizer="fresh"), {"step": 9, "fresh_optimizer": True}, (1, 9)),
    "ToEpoch": (ToEpoch(1), {"epoch": 1}, (1, 7)),
    "ToEpoch, fresh": (ToEpoch(2, "fresh"), {"epoch": 2, "fresh_optimizer": True}, (2, 14)),
    "a string": ("2 epochs", {"epoch": 2}, (2, 14)),
    "a percentage": ("20%", {"step": 4}, (0, 4)),
    "LearningRate": (LearningRate(), {"keep_weights": True}, (0, 0)),
    "LearningRate to an epoch": (LearningRate(to="1 epoch"), {"keep_weights": True, "epoch": 1}, (1, 7)),
    "LearningRate to a step": (LearningRate(to=9), {"keep_weights": True, "step": 9}, (1, 9)),
    "FineTune": (FineTune(2, 0.01), {"keep_weights": True, "fine_tune": (2, 0.01)}, (0, 0)),
}


@pytest.mark.parametrize(("optimizer", "scheduler"), [("sgd", "step"), ("adam", "none"), ("rmsprop", "step")])
@pytest.mark.parametrize("case", CASES)
def test_every_rule_is_that_of_plain_pytorch_in_every_round(digits, case, optimizer, scheduler):
    rule, reference, began = CASES[case]
    network = Dropout()
    train, val = loaders(digits)
    expected = experiment(network, train, val, optimizer, scheduler).run(0.4, 3, **reference)

    spy = LateSpy()
    lottery = LotteryTicketCallback(rounds=3, amount=0.4, rewind=rule, verbose=False)
    seed_everything(11, verbose=False)
    trainer = quiet_trainer(max_epochs=EPOCHS, callbacks=[lottery, spy])
    trainer.fit(Model(network, optimizer, scheduler), train, val)

    assert spy.began == [(0, 0), began, began, began]
    total = [EPOCHS * STEPS_OF_AN_EPOCH] + 3 * [(2 if case == "FineTune" else EPOCHS) * STEPS_OF_AN_EPOCH]
    assert spy.steps == total
    assert [record.steps for record in lottery.records] == [total[0], *(t - began[1] for t in total[1:])]
    for number, (masks, start, end) in enumerate(expected):
        assert same_bits(lottery.tickets[number].masks, {f"network.{name}": mask for name, mask in masks.items()})
        assert same_bits(spy.starts[number], {f"network.{name}": tensor for name, tensor in start.items()})
        assert same_bits(spy.ends[number], {f"network.{name}": tensor for name, tensor in end.items()})
    assert trainer.max_epochs == EPOCHS


def test_every_rule_is_compared_with_plain_pytorch():
    compared = {type(rewind_of(rule)) for rule, _, _ in CASES.values()}
    assert compared == concrete(Rewind)


def test_controls_take_the_weights_of_the_point(digits):
    spy = LateSpy()
    lottery = LotteryTicketCallback(
        densities=[0.4], rewind=ToStep(3), controls=[ShuffleMask(), Reinitialize()], verbose=False
    )
    quiet_trainer(callbacks=[lottery, spy]).fit(Model(), *loaders(digits))
    ticket, shuffled = lottery.tickets[1], lottery.tickets["shuffle_mask"][1]
    both = ticket.masks["network.hidden.weight"] & shuffled.masks["network.hidden.weight"]
    name = "network.hidden.weight"
    assert torch.equal(ticket.weights[name][both], shuffled.weights[name][both])
    assert not torch.equal(ticket.weights[name], lottery.tickets[0].weights[name] * ticket.masks[name])
    assert spy.began == [(0, 0), (0, 3), (0, 3), (0, 3)]
    assert spy.steps == [14] * 4


def test_early_stopping_goes_back_to_the_point_too(digits):
    class Scripted(Model):
        def validation_step(self, batch, batch_idx):
            self.log("score", [0.9, 0.8, 0.7, 0.6, 0.5][self.trainer.current_epoch])  # the best comes first

    stopper = EarlyStopping("score", mode="max", patience=3)
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, rewind=ToEpoch(2), verbose=False)
    spy = LateSpy()
    quiet_trainer(callbacks=[stopper, lottery, spy], max_epochs=6).fit(Scripted(), *loaders(digits))
    assert spy.steps == [4 * 7] * 3  # with full patience it would be 6 epochs


def test_a_validation_that_is_due_at_the_point_belongs_to_round_0(digits):
    class Validations(LateSpy):
        def on_train_start(self, trainer, pl_module):
            super().on_train_start(trainer, pl_module)
            self.validated = [*getattr(self, "validated", []), []]

        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                self.validated[-1].append(trainer.global_step)

    for interval, expected in ((3, [3, 6, 10, 13]), (1.0, [7, 14])):
        spy = Validations()
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, rewind=ToStep(3), verbose=False)
        trainer = quiet_trainer(callbacks=[lottery, spy], val_check_interval=interval)
        trainer.fit(Model(Dropout()), *loaders(digits))
        assert spy.validated == [expected, *[[step for step in expected if step > 3]] * 2]
        assert spy.steps == [14] * 3


def test_generators_continue_from_the_point_without_same_data_order(digits):
    orders = {}
    for same in (True, False):
        spy = LateSpy()
        lottery = LotteryTicketCallback(
            rounds=2, amount=0.5, rewind="9 steps", same_data_order=same, verbose=False
        )
        quiet_trainer(callbacks=[lottery, spy]).fit(Model(), *loaders(digits))
        assert spy.steps == [14] * 3
        assert [len(order) for order in spy.order] == [14, 5, 5]
        orders[same] = [tuple(order[-5:]) for order in spy.order]
    assert len(set(orders[True])) == 1
    assert len(set(orders[False])) == 3


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("soon", "'soon' is not a point in training. Write for example '500 steps'"),
        (3.5, "rewind=3.5 is not a rewinding rule"),
    ],
)
def test_other_objects_are_not_rules(rule, message):
    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(rounds=1, amount=0.5, rewind=rule)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ToStep(0), r"ToStep\(step=0\) is initialisation. Write ToInit\(\)"),
        (lambda: ToStep(-1), "-1 is not a point"),
        (lambda: ToStep(True), "True is not a point"),
        (lambda: ToEpoch("100%"), "'100%' is not a point"),
        (lambda: ToStep(3, optimizer="old"), "optimizer='old' is neither 'restore' nor 'fresh'"),
        (lambda: LearningRate(to="later"), "'later' is not a point"),
        (lambda: FineTune(0, 0.1), "epochs=0 must be an integer of at least 1"),
        (lambda: FineTune(2, True), "lr=True must be a number above 0"),
        (lambda: ToEpoch("3 steps"), r"ToEpoch\(epoch='3 steps'\) is a point in steps. Use ToStep for steps"),
        (lambda: ToStep("3 epochs"), "is a point in epochs"),
        (lambda: ToEpoch("50%"), "is a point in %"),
        (lambda: FineTune(2, 0), "lr=0 must be a number above 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


@pytest.mark.parametrize("rule", ["14 steps", "2 epochs", "15 steps", ToEpoch(5)])
def test_a_point_that_a_round_does_not_reach_is_refused_before_training(digits, rule):
    spy = LateSpy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind=rule, verbose=False)
    with pytest.raises(ConfigurationError, match="is not before the end of a round"):
        quiet_trainer(callbacks=[lottery, spy]).fit(Model(), *loaders(digits))
    assert not spy.starts


def test_a_rule_that_is_refused_leaves_the_run_that_it_would_have_replaced(digits, tmp_path):
    arguments = {"rounds": 1, "amount": 0.5, "dirpath": tmp_path / "run", "overwrite": True, "verbose": False}
    quiet_trainer(callbacks=[LotteryTicketCallback(**arguments)]).fit(Model(), *loaders(digits))
    before = (tmp_path / "run" / "rounds.jsonl").read_bytes()
    lottery = LotteryTicketCallback(**arguments, rewind="99 epochs")
    with pytest.raises(ConfigurationError, match="is not before the end of a round"):
        quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == before


def test_fast_dev_run_tries_a_late_rule_as_well(digits):
    for rule in ("500 steps", LearningRate("1%"), FineTune(2, 0.01)):
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, rewind=rule, verbose=False)
        quiet_trainer(callbacks=[lottery], fast_dev_run=True).fit(Model(), *loaders(digits))
        assert len(lottery.records) == 3


def test_a_percentage_of_data_without_length_is_refused(digits):
    class Endless(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(zip(*digits, strict=True))

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="10%", verbose=False)
    with pytest.raises(ConfigurationError, match="the data have no length"):
        quiet_trainer(callbacks=[lottery]).fit(
            Model(), torch.utils.data.DataLoader(Endless(), 32), loaders(digits)[1]
        )


def test_a_round_0_that_stops_before_the_point_keeps_its_record(digits):
    stopper = EarlyStopping("val_acc", mode="min", patience=0, stopping_threshold=2.0)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="3 epochs", verbose=False)
    with pytest.raises(TrainingError, match="Round 0 ended at step 7, before the rewind point '3 epochs'"):
        quiet_trainer(callbacks=[stopper, lottery], max_epochs=5).fit(Model(), *loaders(digits))
    assert len(lottery.records) == 1


@given(st.integers(1, 10**9), st.sampled_from(["steps", "epochs", "step", "epoch"]))
def test_points_are_read_as_they_are_written(amount, unit):
    point = Point.parse(f"{amount} {unit}")
    assert (point.amount, point.unit) == (amount, unit.rstrip("s") + "s")
    assert Point.parse(str(point)) == point


@given(st.floats(0.01, 99), st.integers(1, 10**6))
def test_a_percentage_is_rounded_to_a_step_of_the_round(percent, steps):
    resolved = Point(percent, "%").resolve(steps)
    assert resolved.unit == "steps"
    assert resolved.amount == max(1, round(percent / 100 * steps))


def test_short_forms():
    assert rewind_of("init") == ToInit()
    assert rewind_of("3 epochs") == ToEpoch(3)
    assert rewind_of("3 steps").weights == ToStep(3).weights


class Averaging(Model):
    """Copies its weights in the last hook of a batch, after all callbacks, like target networks."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(24, 256))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.average.lerp_(self.network.hidden.weight.detach(), 0.1)


def test_a_point_comes_after_all_hooks_of_its_batch(digits):
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 3:
                seen.append(pl_module.average.clone())

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="3 steps", verbose=False)
    quiet_trainer(callbacks=[lottery, Look()]).fit(Averaging(), *loaders(digits))
    assert len(seen) == 2
    assert torch.equal(*seen)


class TwoSteps(Model):
    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            self.manual_backward(nn.functional.cross_entropy(self.network(batch[0]), batch[1]))
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        return [
            torch.optim.SGD(layer.parameters(), lr=0.01) for layer in (self.network.hidden, self.network.output)
        ]


def test_manual_steps_are_counted(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="20 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(TwoSteps(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [28, 8]
    for model, others in ((TwoSteps(), []), (Model(), [GradientAccumulationScheduler({1: 4})])):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="50%", verbose=False)
        with pytest.raises(
            ConfigurationError, match="uses manual optimization, or accumulate_grad_batches changes"
        ):
            quiet_trainer(callbacks=[lottery, *others]).fit(model, *loaders(digits))


def test_an_epoch_that_max_steps_does_not_reach_is_refused_before_training(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="2 epochs", verbose=False)
    with pytest.raises(ConfigurationError, match="not before the end of a round of 2 epochs"):
        quiet_trainer(callbacks=[lottery], max_epochs=10, max_steps=14).fit(Model(), *loaders(digits))
    assert len(lottery.records) == 0


def test_a_scheduler_may_use_a_metric_before_the_first_validation_of_a_round(digits):
    """Step 6 of 7 with a validation every 3 steps: none is left before the scheduler needs one at the end."""
    lottery = LotteryTicketCallback(
        rounds=1, amount=0.5, rewind="6 steps", monitor="val_acc", mode="max", verbose=False
    )
    trainer = quiet_trainer(callbacks=[lottery], val_check_interval=3)
    trainer.fit(Model(scheduler="plateau"), *loaders(digits))
    assert [record.steps for record in lottery.records] == [14, 8]
    assert lottery.records[1].best_step in (10, 13)  # not 6, which is the value of round 0

"""Search rounds, bit for bit against plain PyTorch, and their lengths in a fit."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from torch.utils.data import DataLoader, IterableDataset

from lightning_lottery import (
    ConfigurationError,
    EarlyBird,
    LearningRate,
    LotteryTicketCallback,
    Reinitialize,
    Tolerance,
    TrainingError,
)
from tests.helpers.fits import LateSpy, Model, Uncounted, loaders, make_optimizer, quiet_trainer, same_bits
from tests.helpers.reference_rewind import EPOCHS, PRUNABLE
from tests.helpers.reference_search import Search
from tests.helpers.resuming import Dropout

STEPS_OF_AN_EPOCH = 7
STEPS = EPOCHS * STEPS_OF_AN_EPOCH


def reference(network, train, val, scheduler) -> Search:
    """The same training as of ``Model(network, "sgd", scheduler)`` in ``EPOCHS`` epochs with seed 11."""
    return Search(
        copy.deepcopy(network),
        PRUNABLE,
        train,
        val,
        lambda module: make_optimizer("sgd", module.parameters()),
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.7)) if scheduler == "step" else None,
        epochs=EPOCHS,
        seed=11,
        is_compressed=scheduler == "cycle",
    )


# The argument, the same in steps, and options of both sides.
LENGTHS = {
    "steps in the first epoch": ("4 steps", 4, {}, {}),
    "steps in the second epoch": (10, 10, {}, {}),
    "an epoch": ("1 epoch", 7, {}, {}),
    "a percentage": ("20%", 4, {}, {}),
    "from a later step": ("6 steps", 6, {"rewind": "3 steps"}, {"step": 3}),
    "an epoch from a later step": ("1 epochs", 7, {"rewind": "3 steps"}, {"step": 3}),
    "to the end of an epoch": ("4 steps", 4, {"rewind": "10 steps"}, {"step": 10}),
    "with trained weights": ("4 steps", 4, {"rewind": LearningRate()}, {"keep_weights": True}),
    "with trained weights from a later step": (
        "1 epoch",
        7,
        {"rewind": LearningRate(to=3)},
        {"keep_weights": True, "step": 3},
    ),
}


@pytest.mark.parametrize("scheduler", ["none", "step", "cycle"])
@pytest.mark.parametrize("case", LENGTHS)
def test_every_training_is_that_of_plain_pytorch(digits, case, scheduler):
    search, length, options, theirs = LENGTHS[case]
    network, (train, val) = Dropout(), loaders(digits)
    expected = reference(network, train, val, scheduler).search(0.4, 3, length, [1, 3], **theirs)

    spy = LateSpy()
    lottery = LotteryTicketCallback(
        rounds=3, amount=0.4, search=search, full_rounds=[3, 1], verbose=False, **options
    )
    seed_everything(11, verbose=False)
    trainer = quiet_trainer(max_epochs=EPOCHS, callbacks=[lottery, spy])
    trainer.fit(Model(network, "sgd", scheduler), train, val)

    first = theirs.get("step", 0)
    assert [record.id.name for record in lottery.records] == list(expected)
    assert [record.steps for record in lottery.records] == [STEPS, length, length, *[STEPS - first] * 2]
    for number, (record, training) in enumerate(zip(lottery.records, expected.values(), strict=True)):
        ticket = lottery.tickets[record.branch][record.round]
        assert (ticket.round, ticket.branch) == (record.round, record.branch)
        for found, wanted in (
            (ticket.masks, training.masks),
            (spy.starts[number], training.start),
            (spy.ends[number], training.end),
        ):
            assert same_bits(found, {f"network.{name}": tensor for name, tensor in wanted.items()})
    assert (trainer.max_epochs, trainer.max_steps) == (EPOCHS, -1)


class LearningRates(Callback):
    """Records the limits and the learning rate of every step, by round."""

    def __init__(self):
        self.rounds = []

    def on_train_start(self, trainer, pl_module):
        self.rounds.append({"limits": (trainer.max_epochs, trainer.max_steps), "rates": []})

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rounds[-1]["rates"].append(trainer.optimizers[0].param_groups[0]["lr"])


class Cosine(Model):
    """A schedule over max_epochs, stepped once per epoch."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.max_epochs)]


@pytest.mark.parametrize(
    ("search", "limits"),
    [("2 epochs", (2, -1)), ("50%", (2, -1)), ("25%", (1, -1)), ("10 steps", (2, 10))],
)
def test_schedules_over_max_epochs_are_compressed(digits, search, limits):
    rates = LearningRates()
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, search=search, verbose=False)
    quiet_trainer(max_epochs=4, callbacks=[lottery, rates]).fit(Cosine(), *loaders(digits))
    whole, short, full = rates.rounds
    assert short["limits"] == limits
    by_epoch = short["rates"][::STEPS_OF_AN_EPOCH]
    expected = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * n / limits[0])).item()) for n in range(limits[0])]
    assert by_epoch == pytest.approx(expected)
    assert whole == full
    assert whole["limits"] == (4, -1)


@pytest.mark.parametrize(
    ("most", "steps", "limits"),
    [
        ((None, 20), 10, [(-1, 20), (-1, 10), (-1, 20)]),
        ((None, 28), 14, [(-1, 28), (-1, 14), (-1, 28)]),
        ((9, 28), 14, [(9, 28), (2, 14), (9, 28)]),
        ((9, 20), 10, [(9, 20), (2, 10), (9, 20)]),
    ],
)
def test_a_limit_in_steps_is_shortened(digits, most, steps, limits):
    rates = LearningRates()
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, search="50%", verbose=False)
    trainer = quiet_trainer(max_epochs=most[0], max_steps=most[1], callbacks=[lottery, rates])
    trainer.fit(Model(scheduler="cycle"), *loaders(digits))
    assert [part["limits"] for part in rates.rounds] == limits
    assert [record.steps for record in lottery.records] == [most[1], steps, most[1]]


class WarmedUp(Model):
    """A warmup of a quarter of the steps, then a cosine."""

    def configure_optimizers(self):
        optimizer, steps = torch.optim.SGD(self.parameters(), lr=0.1), int(self.trainer.estimated_stepping_batches)
        warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, steps // 4)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - steps // 4)
        both = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [steps // 4])
        return [optimizer], [{"scheduler": both, "interval": "step"}]


def test_schedules_of_parts_reach_their_end_after_a_later_point(digits):
    """The point is in the warmup of a whole round, but after that of a short one."""
    rates = LearningRates()
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, rewind="8 steps", search="8 steps", verbose=False)
    quiet_trainer(max_epochs=6, callbacks=[lottery, rates]).fit(WarmedUp(), *loaders(digits))
    whole, short, full = rates.rounds
    assert short["limits"][1] == 16
    assert short["rates"][0] == whole["rates"][8], "continues where round 0 was"
    assert short["rates"] == sorted(short["rates"], reverse=True), "the short warmup is over"
    assert short["rates"][-1] < 0.05 * short["rates"][0]
    assert full["rates"] == whole["rates"][8:]


def test_a_search_round_ends_with_a_validation(digits):
    """Otherwise callbacks that need the metric would fail, such as early stopping."""
    lottery = LotteryTicketCallback(
        rounds=2, amount=0.3, search="3 steps", monitor="val_acc", mode="max", verbose=False
    )
    stopper = EarlyStopping("val_loss", patience=9)
    quiet_trainer(callbacks=[lottery, stopper]).fit(Model(), *loaders(digits))
    assert lottery.records["search"][1].curve[0][0] == 3
    assert lottery.records["search"][1].best_step == 3


def test_a_search_round_need_not_log_the_monitored_metric(digits):
    lottery = LotteryTicketCallback(
        rounds=2, amount=0.3, search="3 steps", monitor="val_acc", mode="max", verbose=False
    )
    quiet_trainer(callbacks=[lottery], check_val_every_n_epoch=2).fit(Model(), *loaders(digits))
    assert lottery.records["search"][1].best_value is None
    assert lottery.records[2].best_value is not None


@pytest.mark.parametrize("least", [{"min_epochs": 2}, {"min_steps": 9}])
def test_minimums_of_the_trainer_do_not_lengthen_search_rounds(digits, least):
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, search="3 steps", verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, EarlyStopping("val_loss", patience=9)], **least)
    trainer.fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [14, 3, 14]
    assert "val_loss" in lottery.records["search"][1].metrics
    assert trainer.min_epochs == least.get("min_epochs", 1)
    assert trainer.min_steps == least.get("min_steps")


def test_early_birds_end_search_rounds_earlier_but_no_others(digits):
    bird = EarlyBird(window=2, tolerance=0.9)
    lottery = LotteryTicketCallback(rounds=3, amount=0.3, search="4 epochs", stop=[bird], verbose=False)
    quiet_trainer(max_epochs=6, callbacks=[lottery]).fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [42, 14, 14, 42]
    assert [record.is_cut_short for record in lottery.records] == [False, True, True, False]
    assert [record.saved_steps for record in lottery.records] == [0, 14, 14, 0]


def test_a_tolerance_ends_the_full_trainings(digits, capsys):
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.002, 0.001],
        search="50%",
        full_rounds="all",
        monitor="val_acc",
        mode="max",
        stop=[Tolerance(0.05)],
    )
    quiet_trainer(callbacks=[lottery], max_epochs=6).fit(Model(), *loaders(digits))
    names = [record.id.name for record in lottery.records]
    assert names == ["round_00", "round_01_search", "round_02_search", "round_01", "round_02"]
    assert "No further ticket: Tolerance(drop=0.05) ended the run." in capsys.readouterr().out


def test_controls_refer_to_the_tickets_that_trained_fully(digits):
    lottery = LotteryTicketCallback(
        rounds=3, amount=0.3, search="50%", full_rounds=[2, 3], controls=[Reinitialize()], verbose=False
    )
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    assert list(lottery.records["reinitialize"]) == [2, 3]
    for number in (2, 3):
        assert lottery.records["reinitialize"][number].masks_hash == lottery.records[number].masks_hash
        assert lottery.records["reinitialize"][number].steps == 14


def test_equal_densities_train_the_same_mask_in_short_rounds(digits):
    lottery = LotteryTicketCallback(
        densities=[0.3] * 3, rewind=LearningRate(), search="50%", full_rounds=[2, 3], verbose=False
    )
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [14, 7, 7, 14, 14]
    assert len({record.masks_hash for record in lottery.records}) == 2


def test_fast_dev_run_tries_every_round(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, search="50%", verbose=False)
    quiet_trainer(callbacks=[lottery], fast_dev_run=True).fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [1, 1, 1]


@pytest.mark.parametrize(
    ("search", "options", "message"),
    [
        (
            "14 steps",
            {},
            "not shorter than a round: 14 steps. Write for example search='2 steps'",
        ),
        ("2 epochs", {}, "search='2 epochs' is 14 steps, which is not shorter than a round: 14 steps"),
        ("99%", {}, "search='99%' is 14 steps, which is not shorter than a round"),
        (
            "10 steps",
            {"rewind": "4 steps"},
            r"than the rounds after ToStep\(step='4 steps', optimizer='restore'\): 10 steps",
        ),
        (
            "1 epochs",
            {"rewind": "1 epochs"},
            r"is 7 steps, which is not shorter than the rounds after ToEpoch",
        ),
        ("1%", {}, "search='1%' of a round of 14 steps is below one step. Write a greater part.*search='1 steps'"),
        (
            "1 epochs",
            {"stop": [EarlyBird(2)]},
            r"the masks of 2 epochs, but search='1 epochs' ends rounds within 1",
        ),
    ],
)
def test_lengths_that_do_not_fit_are_refused_before_training(digits, tmp_path, search, options, message):
    """An earlier run in the folder stays, even with overwrite=True."""
    earlier = LotteryTicketCallback(rounds=2, amount=0.3, dirpath=tmp_path / "run", verbose=False)
    quiet_trainer(callbacks=[earlier], max_epochs=1).fit(Model(), *loaders(digits))
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "run").rglob("*.*"))
    lottery = LotteryTicketCallback(
        rounds=2, amount=0.3, dirpath=tmp_path / "run", overwrite=True, verbose=False, search=search, **options
    )
    with pytest.raises(ConfigurationError, match=message):
        quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    assert sorted((path, path.read_bytes()) for path in (tmp_path / "run").rglob("*.*")) == before


class Endless(IterableDataset):
    def __init__(self, digits):
        self.digits = digits

    def __iter__(self):
        return zip(*self.digits, strict=True)


def endless(digits):
    return DataLoader(Endless([part[:200] for part in digits]), 32)


def test_data_without_a_length_need_steps_or_epochs(digits):
    def fit(search, most_steps=-1, **options):
        lottery = LotteryTicketCallback(rounds=2, amount=0.3, search=search, verbose=False, **options)
        quiet_trainer(callbacks=[lottery], max_epochs=3, max_steps=most_steps).fit(Model(), endless(digits))
        return [record.steps for record in lottery.records]

    assert fit("5 steps") == [21, 5, 21]
    assert fit("2 epochs") == [21, 14, 21]
    assert fit("1 epochs", rewind="1 epochs") == [21, 7, 14]
    assert fit("5 steps", rewind="1 epochs", most_steps=15) == [15, 5, 8]
    assert fit("16 steps", stop=[EarlyBird(2, 0.9)]) == [21, 14, 21]
    with pytest.raises(ConfigurationError, match="search='20%' needs the number of steps in a round"):
        fit("20%")
    with pytest.raises(
        ConfigurationError, match="search='3 epochs' is 3 epochs, which is not shorter than a round: 3 epochs"
    ):
        fit("3 epochs")
    with pytest.raises(ConfigurationError, match=r"not shorter than the rounds after ToEpoch.*: 2 epochs"):
        fit("2 epochs", rewind="1 epochs")
    with pytest.raises(
        ConfigurationError, match=r"search='1 epochs' after ToStep.*needs the number of steps in an"
    ):
        fit("1 epochs", rewind="3 steps")
    with pytest.raises(
        ConfigurationError, match=r"the masks of 2 epochs, but search='1 epochs' ends rounds within 1"
    ):
        fit("1 epochs", stop=[EarlyBird(2)])


def test_steps_that_lightning_does_not_count_cannot_limit_a_round(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, search="5 steps", verbose=False)
    with pytest.raises(TrainingError, match="search='5 steps' is given in steps, but Lightning does not count"):
        quiet_trainer(callbacks=[lottery], max_epochs=3).fit(Uncounted(), *loaders(digits))
    lottery = LotteryTicketCallback(rounds=2, amount=0.3, search="1 epochs", verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=3).fit(Uncounted(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [21, 7, 21]

"""Rounds of equal density: cyclic training, and rounds that only repeat."""

import warnings
from pathlib import Path

import pytest
from lightning.pytorch import seed_everything

from lightning_lottery import LearningRate, LotteryTicketCallback
from tests.helpers.fits import LateSpy, Model, loaders, quiet_trainer, same_bits
from tests.helpers.reference_rewind import EPOCHS, experiment
from tests.helpers.resuming import Dropout


def test_cyclic_training_is_that_of_plain_pytorch(digits):
    """Rounds of equal density train the same weights again from the start of the schedule (arXiv:2406.02773)."""
    network = Dropout()
    train, val = loaders(digits)
    expected = experiment(network, train, val, "sgd", "step").run([0.5, 0.0, 0.0, 0.5], 4, keep_weights=True)

    spy = LateSpy()
    lottery = LotteryTicketCallback(densities=[0.5, 0.5, 0.5, 0.25], rewind=LearningRate(), verbose=False)
    seed_everything(11, verbose=False)
    quiet_trainer(max_epochs=EPOCHS, callbacks=[lottery, spy]).fit(Model(network, "sgd", "step"), train, val)
    assert [record.kept for record in lottery.records] == [6484, 3242, 3242, 3242, 1621]
    for number, (masks, start, end) in enumerate(expected):
        assert same_bits(lottery.tickets[number].masks, {f"network.{name}": mask for name, mask in masks.items()})
        assert same_bits(spy.starts[number], {f"network.{name}": tensor for name, tensor in start.items()})
        assert same_bits(spy.ends[number], {f"network.{name}": tensor for name, tensor in end.items()})


@pytest.mark.usefixtures("reports")
def test_rounds_that_only_repeat_the_training_before_are_said(digits):
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.5, 0.2, 0.2], monitor="val_acc", mode="max", dirpath="run", verbose=False
    )
    with pytest.warns(UserWarning, match=r"rounds \[2, 4\] have the density.*write rewind=LearningRate\(\)"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    ends = [record.metrics for record in lottery.records]
    assert (ends[1], ends[3]) == (ends[2], ends[4])
    assert ends[1] != ends[3]
    assert Path("run/report.png").exists(), "drawn by round"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The rounds")
        lottery = LotteryTicketCallback(densities=[0.5, 0.5], same_data_order=False, verbose=False)
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    assert lottery.records[1].metrics != lottery.records[2].metrics
    assert same_bits(lottery.tickets[1].masks, lottery.tickets[2].masks)


def test_a_first_round_with_the_density_of_the_given_ticket_repeats_it(digits):
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    further = LotteryTicketCallback(start=lottery.tickets[1], densities=[0.5, 0.5], verbose=False)
    with pytest.warns(UserWarning, match=r"rounds \[1, 2\] have the density of the round before"):
        quiet_trainer(callbacks=[further], max_epochs=1).fit(Model(), *loaders(digits))
    assert further.records[0].metrics == further.records[1].metrics == further.records[2].metrics

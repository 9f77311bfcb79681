"""NumPy and PyTorch numbers as arguments."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import (
    ERK,
    SNIP,
    Block,
    Channels,
    ConfigurationError,
    EarlyBird,
    FineTune,
    Layerwise,
    LearningRate,
    LotteryTicketCallback,
    NofM,
    ShuffleMask,
    SynFlow,
    ToEpoch,
    Tolerance,
    ToStep,
)
from lightning_lottery.masks.smallest import prune_smallest
from lightning_lottery.plain import check_integer, check_number, plain
from lightning_lottery.rules.rewind import rewind_of
from tests.helpers.fits import Model, loaders, quiet_trainer

TWO, HALF = np.int64(2), np.float32(0.5)


def test_numbers_become_python_numbers_and_everything_else_stays():
    given = {"a": [np.int32(3), (np.float64(0.5), "x")], np.int64(1): torch.tensor([0.5]), "b": np.bool_(True)}
    assert json.dumps(plain(given)) == '{"a": [3, [0.5, "x"]], "1": [0.5], "b": true}'
    assert plain([Fraction(1, 5)]) == [0.2]
    thing = object()
    assert plain(thing) is thing


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (lambda: Tolerance(np.float32(0.5)), Tolerance(0.5)),
        (lambda: EarlyBird(window=TWO, tolerance=HALF), EarlyBird(window=2, tolerance=0.5)),
        (lambda: FineTune(epochs=TWO, lr=HALF), FineTune(epochs=2, lr=0.5)),
        (lambda: ToStep(TWO), ToStep(2)),
        (lambda: ToEpoch(torch.tensor(2)), ToEpoch(2)),
        (lambda: LearningRate(to=TWO), LearningRate(to=2)),
        (lambda: rewind_of(TWO), ToStep("2 steps")),
        (lambda: Layerwise(layer_amounts={"last": HALF}), Layerwise(layer_amounts={"last": 0.5})),
        (lambda: ERK(min_density=HALF), ERK(min_density=0.5)),
        (lambda: NofM(TWO, np.int64(4)), NofM(2, 4)),
        (lambda: Channels(norm=TWO), Channels(norm=2)),
        (lambda: Block(TWO, TWO), Block(2, 2)),
        (lambda: SNIP(batches=TWO), SNIP(batches=2)),
        (lambda: SynFlow(steps=TWO), SynFlow(steps=2)),
    ],
)
def test_rules_accept_numpy_and_pytorch_numbers(made, expected):
    assert made() == expected
    assert repr(made()) == repr(expected)


def test_a_run_accepts_numpy_numbers(digits):
    lottery = LotteryTicketCallback(
        rounds=TWO,
        amount=HALF,
        controls=[ShuffleMask()],
        control_rounds=np.array([2]),
        monitor="val_acc",
        mode="max",
        verbose=False,
    )
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    assert [record.kept for record in lottery.records["ticket"].values()] == [6484, 3242, 1621]
    assert lottery.smallest_matching(np.float32(1)).round == 2
    arguments = json.loads((lottery.run_folder / "lottery.json").read_text())["arguments"]
    assert (arguments["rounds"], arguments["amount"], arguments["control_rounds"]) == (2, 0.5, [2])


def test_counts_may_be_numpy_numbers():
    masks = prune_smallest({"w": torch.tensor([3.0, 1.0, 2.0])}, None, np.int64(1))
    assert masks["w"].tolist() == [True, False, True]


@given(st.integers(-5, 5) | st.floats() | st.booleans() | st.text(max_size=2), st.integers(-3, 3))
def test_integers_are_checked(value, least):
    if type(value) is int and value >= least:
        assert (
            check_integer("n", value, least, "n=3") == check_integer("n", np.int64(value), least, "n=3") == value
        )
        return
    with pytest.raises(ConfigurationError, match=rf"must be an integer of at least {least}, for example n=3\."):
        check_integer("n", value, least, "n=3")


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("above 0", [1e-9, 3], [0, -1, math.inf, math.nan]),
        ("of at least 0", [0, 3, math.inf], [-1e-9, math.nan]),
        ("between 0 and 1", [0, 0.5, 1], [-0.1, 1.1, math.nan]),
        ("between 0 and 1, both excluded", [0.5], [0, 1, math.nan]),
        ("from 0 to below 1", [0, 0.5], [-0.1, 1, math.nan]),
    ],
)
def test_numbers_are_checked(interval, inside, outside):
    for value in inside:
        assert check_number("x", np.float64(value), interval, "x=0.5") == value
    for value in [*outside, True, "0.5", None]:
        with pytest.raises(ConfigurationError, match=f"must be a number {interval}, for example x=0.5"):
            check_number("x", value, interval, "x=0.5")

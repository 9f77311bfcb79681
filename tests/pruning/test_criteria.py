import pytest
import torch
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    Context,
    LargeFinalSameSign,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    Random,
)
from lightning_lottery.pruning.criteria import criterion_of

FINAL = torch.tensor([[2.0, -3.0, 0.5], [-1.0, 0.0, 4.0]])
START = torch.tensor([[1.0, 3.0, -0.5], [-2.0, 1.0, 0.0]])


def context(seed=0, weight=FINAL):
    return Context({"w": weight}, {"w": START}, {"w": torch.ones(2, 3, dtype=torch.bool)}, nn.Module(), None, seed)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (Magnitude(), [[2, 3, 0.5], [1, 0, 4]]),
        (Movement(), [[1, 6, 1], [1, 1, 4]]),
        (MagnitudeIncrease(), [[1, 0, 0], [-1, -1, 4]]),
        (LargeFinalSameSign(), [[2, 0, 0], [1, 0, 0]]),
    ],
)
def test_the_formulas_of_the_papers_by_hand(criterion, expected):
    scores = criterion.score(context())["w"]
    assert (scores.abs() if criterion.absolute else scores).tolist() == expected


def test_random_scores_are_uniform_and_follow_from_the_seed():
    big = torch.zeros(100_000)
    draw = Random().score(context(5, big))["w"]
    assert torch.equal(draw, Random().score(context(5, big))["w"])
    assert not torch.equal(draw, Random().score(context(6, big))["w"])
    counts = torch.histc(draw, 10, 0, 1)
    assert ((counts - 10_000).square() / 10_000).sum() < 27.9, "chi squared, 9 degrees of freedom, p = 0.001"
    before = torch.get_rng_state()
    Random().score(context())
    assert torch.equal(before, torch.get_rng_state())


def test_a_plain_function_is_a_criterion():
    criterion = criterion_of(lambda weight: weight.square())
    assert criterion.score(context())["w"].tolist() == FINAL.square().tolist()
    assert not criterion.absolute
    assert criterion.iterations == 1
    assert criterion_of(None) == Magnitude()
    assert criterion_of(Movement()) == Movement()


@pytest.mark.parametrize("wrong", ["magnitude", 3, Magnitude])
def test_other_objects_are_not_criteria(wrong):
    with pytest.raises(ConfigurationError, match=r"is not a criterion\. Write an instance"):
        criterion_of(wrong)

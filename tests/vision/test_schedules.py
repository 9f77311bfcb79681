"""Learning-rate schedules, against those of PyTorch."""

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LinearLR, MultiStepLR, SequentialLR

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import WarmUpAndDrops


def rates(make, steps=40):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_drops_are_those_of_multi_step():
    ours = rates(lambda optimizer: WarmUpAndDrops(optimizer, drops=[10, 25], factor=0.2))
    assert ours == pytest.approx(rates(lambda optimizer: MultiStepLR(optimizer, [10, 25], gamma=0.2)))


def test_the_rise_is_linear_and_ends_at_the_learning_rate():
    ours = rates(lambda optimizer: WarmUpAndDrops(optimizer, warm_up=8, drops=[20]))
    assert ours[:10] == pytest.approx([0.4 * step / 8 for step in range(1, 9)] + [0.4, 0.4])
    assert ours[19:21] == pytest.approx([0.4, 0.04])
    theirs = rates(
        lambda optimizer: SequentialLR(
            optimizer, [LinearLR(optimizer, 1 / 8, total_iters=7), MultiStepLR(optimizer, [12])], milestones=[8]
        )
    )
    assert ours == pytest.approx(theirs)


def test_drops_may_come_before_the_end_of_the_rise():
    assert rates(lambda optimizer: WarmUpAndDrops(optimizer, warm_up=4, drops=[2]), 4) == pytest.approx(
        [0.1, 0.2, 0.03, 0.04]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warm_up": -1}, "warm_up=-1 must be an integer of at least 0"),
        ({"drops": [0]}, r"drops\[0\]=0 must be an integer of at least 1"),
        ({"drops": 80}, "drops=80 is not a list"),
        ({"factor": 1.5}, "factor=1.5 must be a number between 0 and 1, both excluded"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        rates(lambda optimizer: WarmUpAndDrops(optimizer, **arguments))

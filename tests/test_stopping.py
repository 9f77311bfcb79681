import pytest
import torch

from lightning_lottery import ConfigurationError, EarlyBird, RoundRecord, Tolerance
from lightning_lottery.stopping import distance


def records(*values):
    return [RoundRecord(n, "ticket", 0.5**n, 1, 1, 1, best_value=value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "mode", "over"),
    [
        ((0.9,), "max", False),
        ((0.9, 0.895), "max", False),
        ((0.9, 0.88), "max", True),
        ((0.9, 0.95), "max", False),
        ((0.3, 0.305), "min", False),
        ((0.3, 0.32), "min", True),
        ((0.3, 0.1), "min", False),
        ((0.3, None), "min", True),
    ],
)
def test_rounds_end_when_a_value_falls_below_the_dense_one_by_more(values, mode, over):
    assert Tolerance(drop=0.01).after_round(records(*values), mode) is over


def mask(*ones, size=10):
    made = torch.zeros(size, dtype=torch.bool)
    made[list(ones)] = True
    return {"w": made}


def test_the_distance_is_the_fraction_of_survivors_that_differ():
    now = {"w": torch.arange(10) < 4}
    assert distance(mask(0, 1), mask(1, 2), now) == 2 / 4
    now = {"a": torch.ones(10, dtype=torch.bool), "b": torch.ones(30, dtype=torch.bool)}
    empty = mask(size=30)["w"]
    assert distance({"a": mask(0)["w"], "b": empty}, {"a": mask()["w"], "b": empty}, now) == 1 / 40


def test_a_bird_is_early_when_the_newest_mask_is_near_all_others_of_the_window():
    rule, now = EarlyBird(window=3, tolerance=0.1), {"w": torch.ones(10, dtype=torch.bool)}
    far, near, same = mask(5, 6), mask(0), mask(0, 1)
    assert not rule.after_epoch([near, same], now)
    assert not rule.after_epoch([far, near, same], now)
    assert rule.after_epoch([same, near, same], now)
    assert rule.after_epoch([far, same, near, same], now)
    assert not EarlyBird(window=3, tolerance=0).after_epoch([same, near, same], now)
    assert rule.window == 3


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
def test_masks_that_have_nothing_in_common_never_settle(density):
    generator = torch.Generator().manual_seed(0)
    now = {"w": torch.rand(10_000, generator=generator) < density}
    masks = [{"w": now["w"] & (torch.rand(10_000, generator=generator) < 0.8)} for _ in range(5)]
    assert not EarlyBird().after_epoch(masks, now)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tolerance(drop=-0.1), r"drop=-0.1 must be a number of at least 0"),
        (lambda: Tolerance(drop="1%"), "drop='1%'"),
        (lambda: EarlyBird(window=1), "window=1 must be an integer of at least 2"),
        (lambda: EarlyBird(tolerance=1), "tolerance=1 must be a number from 0 up to 1"),
    ],
)
def test_arguments_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()

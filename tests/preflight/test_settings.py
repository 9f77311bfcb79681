"""Arguments that do not go together are refused."""

from dataclasses import dataclass

import pytest

from lightning_lottery import (
    Block,
    Channels,
    ConfigurationError,
    Control,
    Global,
    LotteryTicketCallback,
    Movement,
    NofM,
    Reinitialize,
    ShuffleMask,
    Tolerance,
)


@dataclass(frozen=True)
class Same(Control):
    def ticket(self, ticket, dense, module, seed):
        return ticket


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "maximum"}, "mode='maximum' is neither 'min' nor 'max'"),
        ({"include": "a.weight"}, r"include='a.weight' is no list. Write include=\[...\]"),
        ({"exclude": None}, "exclude=None is no list"),
        ({"controls": ShuffleMask()}, r"controls=ShuffleMask\(\) is no list"),
        ({"monitor": 3, "mode": "max"}, "monitor=3 is no name"),
        ({"mode": "max"}, "mode='max' came without monitor.*Write also monitor='val_acc'"),
        ({"include": [3]}, r"include holds 3, which is not a string.*include=\['\*.head.weight'\]"),
        ({"monitor": "val_acc"}, "monitor='val_acc' came without mode. Write mode='max' if"),
        ({"controls": [ShuffleMask()], "control_rounds": 3}, "control_rounds=3 is no list"),
        ({"control_rounds": [3]}, r"came without controls. Write also controls=\[Reinitialize\(\)\]"),
        ({"controls": [ShuffleMask]}, "which is no control. Write instances"),
        ({"controls": ["ShuffleMask"]}, "which is no control"),
        ({"controls": [ShuffleMask(), ShuffleMask()]}, "not all different"),
        ({"controls": [ShuffleMask()], "control_rounds": [0, 3]}, "must name different rounds from 1 to 4"),
        ({"controls": [ShuffleMask()], "control_rounds": [5]}, "must name different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": [3, 3]}, "must name different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": []}, "must name different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": [1.0]}, "must name different rounds"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(rounds=4, amount=0.2, **arguments)


def test_controls_take_the_chosen_rounds_or_all_but_the_dense_one():
    controls = [Reinitialize(), ShuffleMask(), Same()]
    chosen = LotteryTicketCallback(
        rounds=4, amount=0.2, controls=controls, control_rounds=[4, 2]
    ).settings.controlled
    assert [(number, control.branch) for number, control in chosen] == [
        (number, branch) for number in (2, 4) for branch in ("reinitialize", "shuffle_mask", "same")
    ]
    every = LotteryTicketCallback(densities=[0.5, 0.1], controls=[Same()]).settings.controlled
    assert [number for number, _ in every] == [1, 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": [Tolerance(0.1)]}, "compares with the dense round by the monitored metric"),
        ({"stop": Tolerance(0.1)}, r"stop=Tolerance\(drop=0.1\) is no list"),
        ({"stop": ["early"]}, "stop holds 'early', which is no stop rule"),
        ({"prune_at_init": True, "rewind": "1 epoch"}, "and round 0, which has that point, is not trained"),
        ({"prune_at_init": True, "criterion": Movement()}, "whose scores are all alike before any training"),
        ({"prune_at_init": "no"}, "prune_at_init='no' must be True or False"),
        ({"pattern": "2:4"}, "pattern='2:4' is no pattern"),
        ({"scope": Global}, "is no scope"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(rounds=1, amount=0.5, **options)


def test_shuffled_masks_would_tear_patterns_apart():
    for pattern in (NofM(), Channels(), Block()):
        with pytest.raises(ConfigurationError, match="ShuffleMask moves single weights"):
            LotteryTicketCallback(rounds=1, amount=0.5, pattern=pattern, controls=[ShuffleMask()])

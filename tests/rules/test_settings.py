"""Invalid and incompatible arguments are refused."""

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
        ({"include": "a.weight"}, r"include='a.weight' is not a list. Write for example include=\[...\]"),
        ({"exclude": None}, "exclude=None is not a list"),
        ({"controls": ShuffleMask()}, r"controls=ShuffleMask\(\) is not a list"),
        ({"monitor": 3, "mode": "max"}, "monitor=3 is not a name"),
        ({"mode": "max"}, "mode='max' also needs monitor.*Add for example monitor='val_acc'"),
        ({"include": [3]}, r"include contains 3, which is not a string.*include=\['\*.head.weight'\]"),
        ({"monitor": "val_acc"}, "monitor='val_acc' also needs mode. Write mode='max' if"),
        ({"controls": [ShuffleMask()], "control_rounds": 3}, "control_rounds=3 is not a list"),
        ({"control_rounds": [3]}, r"also needs controls. Add for example controls=\[Reinitialize\(\)\]"),
        ({"controls": [ShuffleMask]}, "which is not a control. Write instances"),
        ({"controls": ["ShuffleMask"]}, "which is not a control"),
        ({"controls": [ShuffleMask(), ShuffleMask()]}, "have the same name, 'shuffle_mask'. Keep one of them"),
        ({"controls": [ShuffleMask()], "control_rounds": [0, 3]}, "must contain different rounds from 1 to 4"),
        ({"controls": [ShuffleMask()], "control_rounds": [5]}, "must contain different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": [True]}, "must contain different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": [3, 3]}, "must contain different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": []}, "must contain different rounds"),
        ({"controls": [ShuffleMask()], "control_rounds": [1.0]}, "must contain different rounds"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(rounds=4, amount=0.2, **arguments)


def test_controls_take_the_chosen_rounds_or_all_but_the_dense_one():
    controls = [Reinitialize(), ShuffleMask(), Same()]
    chosen = LotteryTicketCallback(rounds=4, amount=0.2, controls=controls, control_rounds=[4, 2]).settings
    assert chosen.controlled_rounds == [2, 4]
    assert chosen.branches == dict(zip(("reinitialize", "shuffle_mask", "same"), controls, strict=True))
    every = LotteryTicketCallback(densities=[0.5, 0.1], controls=[Same()]).settings
    assert every.controlled_rounds == [1, 2]
    assert LotteryTicketCallback(densities=[0.5, 0.1]).settings.controlled_rounds == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stop": [Tolerance(0.1)]}, "compares the monitored metric with the dense round"),
        ({"stop": Tolerance(0.1)}, r"stop=Tolerance\(drop=0.1\) is not a list"),
        ({"stop": ["early"]}, "stop contains 'early', which is not a stop rule"),
        (
            {"prune_at_init": True, "rewind": "1 epoch"},
            "because it does not train round 0, which contains the rewind point",
        ),
        ({"prune_at_init": True, "criterion": Movement()}, "whose scores are all equal before training"),
        ({"prune_at_init": "no"}, "prune_at_init='no' must be True or False"),
        ({"pattern": "2:4"}, "pattern='2:4' is not a pattern"),
        ({"scope": Global}, "is not a scope"),
    ],
)
def test_incompatible_arguments_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        LotteryTicketCallback(rounds=1, amount=0.5, **options)


def test_shuffle_mask_with_a_pattern_is_refused():
    for pattern in (NofM(), Channels(), Block()):
        with pytest.raises(ConfigurationError, match="ShuffleMask moves single weights"):
            LotteryTicketCallback(rounds=1, amount=0.5, pattern=pattern, controls=[ShuffleMask()])

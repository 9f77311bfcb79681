from dataclasses import dataclass

import pytest

from lightning_lottery import ConfigurationError, Control, LotteryTicketCallback, Reinitialize, ShuffleMask


@dataclass(frozen=True)
class Same(Control):
    def ticket(self, ticket, dense, module, seed):
        return ticket


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "maximum"}, "mode='maximum' is neither 'min' nor 'max'"),
        ({"include": "a.weight"}, r"include='a.weight' is one string. Write a list: include=\['a.weight'\]"),
        ({"exclude": "a.weight"}, "exclude='a.weight' is one string"),
        ({"controls": [ShuffleMask]}, "which is no control. Write instances"),
        ({"controls": ["ShuffleMask"]}, "which is no control"),
        ({"controls": [ShuffleMask(), ShuffleMask()]}, "not all different"),
        ({"control_rounds": [0, 3]}, "must name different rounds from 1 to 4"),
        ({"control_rounds": [5]}, "must name different rounds"),
        ({"control_rounds": [3, 3]}, "must name different rounds"),
        ({"control_rounds": []}, "must name different rounds"),
        ({"control_rounds": [1.0]}, "must name different rounds"),
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

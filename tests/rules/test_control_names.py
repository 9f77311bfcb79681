"""The names of controls: which branch of the records each has."""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    LotteryTicketCallback,
    Reinitialize,
    ShuffleMask,
)
from tests.helpers.fits import Model, loaders, quiet_trainer


@dataclass(frozen=True)
class Noise(ShuffleMask):
    scale: float = 0.1


def kaiming(module):
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter)


def test_controls_of_one_class_are_told_apart_by_their_arguments_or_names():
    controls = [
        Noise(),
        Noise(0.25),
        Noise(0.5, name="loud"),
        Reinitialize(),
        Reinitialize(kaiming),
        ShuffleMask(),
    ]
    settings = LotteryTicketCallback(rounds=1, amount=0.5, controls=controls).settings
    assert list(settings.branches) == [
        *("noise", "noise_scale_0_25", "loud", "reinitialize", "reinitialize_kaiming", "shuffle_mask"),
    ]
    assert list(settings.branches.values()) == controls
    for same in ([Noise(0.25), Noise(0.25)], [Noise(name="a"), ShuffleMask(name="a")]):
        with pytest.raises(ConfigurationError, match=r"have the same name.*, name='\w+_2'\)"):
            LotteryTicketCallback(rounds=1, amount=0.5, controls=same)
    for name in ("no name", 3, "x" * 51):
        with pytest.raises(ConfigurationError, match=f"is {name!r}, which is not a valid name"):
            LotteryTicketCallback(rounds=1, amount=0.5, controls=[Noise(name=name)])


@pytest.mark.parametrize(
    "odd", [functools.partial(kaiming), torch.rand(2), [0.1, 0.2]], ids=["partial", "tensor", "list"]
)
def test_arguments_that_make_no_stable_name_need_a_name(odd):
    """Another process would print another address, and find another branch."""
    with pytest.raises(ConfigurationError, match=r"Give each a name: Reinitialize\(\.\.\., name='other_name'\)"):
        LotteryTicketCallback(rounds=1, amount=0.5, controls=[Reinitialize(), Reinitialize(odd)])
    controls = [Reinitialize(), Reinitialize(odd, name="odd")]
    assert list(LotteryTicketCallback(rounds=1, amount=0.5, controls=controls).settings.branches)[1] == "odd"
    assert list(LotteryTicketCallback(rounds=1, amount=0.5, controls=[Reinitialize(odd)]).settings.branches) == [
        "reinitialize"
    ]


def test_two_controls_of_one_class_are_two_branches(digits):
    controls = [Reinitialize(), Reinitialize(fill)]
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=controls, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    assert lottery.records.branches() == ["ticket", "reinitialize", "reinitialize_fill"]
    filled = lottery.tickets["reinitialize_fill"][1]
    assert set(filled.weights["network.hidden.weight"].unique().tolist()) == {0.0, 0.125}
    assert lottery.records[1].kept_by_layer == {
        name: int(mask.sum()) for name, mask in lottery.tickets[1].masks.items()
    }


def fill(module):
    for parameter in module.parameters():
        nn.init.constant_(parameter, 0.125)

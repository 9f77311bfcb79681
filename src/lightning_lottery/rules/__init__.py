"""The rules that rounds follow: all arguments of a run, rewinding, controls, stopping, the plan."""

from lightning_lottery.rules.control import Control, make_control
from lightning_lottery.rules.controls import (
    DenseAgain,
    InitialTicket,
    KeepSign,
    RandomMask,
    Reinitialize,
    ShuffleMask,
    SignOnly,
)
from lightning_lottery.rules.description import alike, described
from lightning_lottery.rules.differences import Difference, differences
from lightning_lottery.rules.plan import Plan, ending_rule
from lightning_lottery.rules.rewind import (
    FineTune,
    LearningRate,
    Point,
    Rewind,
    ToEpoch,
    ToInit,
    ToStep,
    rewind_of,
)
from lightning_lottery.rules.search import length_of
from lightning_lottery.rules.settings import Settings
from lightning_lottery.rules.stopping import EarlyBird, Stop, Tolerance

__all__ = [
    "Control",
    "DenseAgain",
    "Difference",
    "EarlyBird",
    "FineTune",
    "InitialTicket",
    "KeepSign",
    "LearningRate",
    "Plan",
    "Point",
    "RandomMask",
    "Reinitialize",
    "Rewind",
    "Settings",
    "ShuffleMask",
    "SignOnly",
    "Stop",
    "ToEpoch",
    "ToInit",
    "ToStep",
    "Tolerance",
    "alike",
    "described",
    "differences",
    "ending_rule",
    "length_of",
    "make_control",
    "rewind_of",
]

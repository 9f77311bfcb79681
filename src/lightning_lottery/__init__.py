"""Find winning lottery tickets inside one PyTorch Lightning fit."""

from lightning_lottery.callback import LotteryTicketCallback
from lightning_lottery.controls import Control, Reinitialize, ShuffleMask
from lightning_lottery.criteria import (
    Context,
    Criterion,
    LargeFinalSameSign,
    Magnitude,
    MagnitudeIncrease,
    Movement,
    Random,
)
from lightning_lottery.errors import ConfigurationError, FolderError, LotteryError, TicketError, TrainingError
from lightning_lottery.patterns import Block, Channels, Layer, NofM, Pattern, Unstructured
from lightning_lottery.preview import Preview
from lightning_lottery.records import Records, RoundRecord
from lightning_lottery.rewind import FineTune, LearningRate, Point, Rewind, ToEpoch, ToInit, ToStep
from lightning_lottery.scopes import ERK, Global, Layerwise, Pool, Scope
from lightning_lottery.sensitivity import SNIP, GraSP, SynFlow, Taylor
from lightning_lottery.sizes import Sizes
from lightning_lottery.stopping import EarlyBird, Stop, Tolerance
from lightning_lottery.ticket import Ticket

__all__ = [
    "ERK",
    "SNIP",
    "Block",
    "Channels",
    "ConfigurationError",
    "Context",
    "Control",
    "Criterion",
    "EarlyBird",
    "FineTune",
    "FolderError",
    "Global",
    "GraSP",
    "LargeFinalSameSign",
    "Layer",
    "Layerwise",
    "LearningRate",
    "LotteryError",
    "LotteryTicketCallback",
    "Magnitude",
    "MagnitudeIncrease",
    "Movement",
    "NofM",
    "Pattern",
    "Point",
    "Pool",
    "Preview",
    "Random",
    "Records",
    "Reinitialize",
    "Rewind",
    "RoundRecord",
    "Scope",
    "ShuffleMask",
    "Sizes",
    "Stop",
    "SynFlow",
    "Taylor",
    "Ticket",
    "TicketError",
    "ToEpoch",
    "ToInit",
    "ToStep",
    "Tolerance",
    "TrainingError",
    "Unstructured",
]

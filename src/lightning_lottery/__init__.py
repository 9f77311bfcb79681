"""Find winning lottery tickets inside one PyTorch Lightning fit."""

from lightning_lottery.callback import LotteryTicketCallback
from lightning_lottery.controls import Control, Reinitialize, ShuffleMask
from lightning_lottery.errors import ConfigurationError, LotteryError, TicketError, TrainingError
from lightning_lottery.records import Records, RoundRecord
from lightning_lottery.ticket import Ticket

__all__ = [
    "ConfigurationError",
    "Control",
    "LotteryError",
    "LotteryTicketCallback",
    "Records",
    "Reinitialize",
    "RoundRecord",
    "ShuffleMask",
    "Ticket",
    "TicketError",
    "TrainingError",
]

"""The callbacks that users add to a Trainer, and what they offer: results, resuming."""

from lightning_lottery.callback.lottery import LotteryTicketCallback
from lightning_lottery.callback.ticket import TicketCallback

__all__ = ["LotteryTicketCallback", "TicketCallback"]

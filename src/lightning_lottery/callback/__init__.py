"""The callback that users add to a Trainer, and what it offers them: results, resuming."""

from lightning_lottery.callback.lottery import LotteryTicketCallback

__all__ = ["LotteryTicketCallback"]

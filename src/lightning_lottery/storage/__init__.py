"""The run folder with its records and tickets, and the state of a run in checkpoints."""

from lightning_lottery.storage.folder import LAST, RunFolder, Tickets
from lightning_lottery.storage.records import (
    TICKET_BRANCH,
    Best,
    Records,
    RoundRecord,
    round_name,
    smallest_matching,
)
from lightning_lottery.storage.state import RunState

__all__ = [
    "LAST",
    "TICKET_BRANCH",
    "Best",
    "Records",
    "RoundRecord",
    "RunFolder",
    "RunState",
    "Tickets",
    "round_name",
    "smallest_matching",
]

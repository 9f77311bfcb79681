"""What runs and tickets show: statistics over seeds, the verdict, the overlap of two tickets."""

from lightning_lottery.analysis.held_out import is_validation, record_tests
from lightning_lottery.analysis.overlap import Overlap, TicketOverlap, overlap
from lightning_lottery.analysis.question import Question
from lightning_lottery.analysis.statistics import (
    PairedDifference,
    Word,
    has_scipy,
    holm,
    paired_difference,
    word_for,
)
from lightning_lottery.analysis.verdict import Quantity, Training, Verdict, VerdictRow

__all__ = [
    "Overlap",
    "PairedDifference",
    "Quantity",
    "Question",
    "TicketOverlap",
    "Training",
    "Verdict",
    "VerdictRow",
    "Word",
    "has_scipy",
    "holm",
    "is_validation",
    "overlap",
    "paired_difference",
    "record_tests",
    "word_for",
]

"""What the runs of a study show: statistics over seeds, and the verdict."""

from lightning_lottery.analysis.held_out import is_validation, record_tests
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
    "PairedDifference",
    "Quantity",
    "Question",
    "Training",
    "Verdict",
    "VerdictRow",
    "Word",
    "has_scipy",
    "holm",
    "is_validation",
    "paired_difference",
    "record_tests",
    "word_for",
]

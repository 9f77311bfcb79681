"""What runs and tickets show: statistics over seeds, the verdict, the overlap of two tickets."""

from lightning_lottery.analysis.held_out import record_tests
from lightning_lottery.analysis.layers import FirstLayer, layer_densities
from lightning_lottery.analysis.mean_curve import mean_curve
from lightning_lottery.analysis.overlap import Overlap, TicketOverlap, overlap
from lightning_lottery.analysis.paper_comparison import ComparedSize, PaperComparison, compare_with_paper
from lightning_lottery.analysis.question import Question
from lightning_lottery.analysis.statistics import (
    ENOUGH_SEEDS,
    PairedDifference,
    Word,
    has_scipy,
    holm,
    paired_difference,
    word_for,
)
from lightning_lottery.analysis.values import VerdictOptions, full_trainings, rows_of, verdict_of
from lightning_lottery.analysis.verdict import Quantity, Verdict, VerdictRow

__all__ = [
    "ENOUGH_SEEDS",
    "ComparedSize",
    "FirstLayer",
    "Overlap",
    "PairedDifference",
    "PaperComparison",
    "Quantity",
    "Question",
    "TicketOverlap",
    "Verdict",
    "VerdictOptions",
    "VerdictRow",
    "Word",
    "compare_with_paper",
    "full_trainings",
    "has_scipy",
    "holm",
    "layer_densities",
    "mean_curve",
    "overlap",
    "paired_difference",
    "record_tests",
    "rows_of",
    "verdict_of",
    "word_for",
]

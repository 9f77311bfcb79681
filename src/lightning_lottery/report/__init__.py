"""What people read and look at: lines of text, tables, figures."""

from lightning_lottery.report.figures import can_draw, curves, figure, has_equal_densities, save_figure
from lightning_lottery.report.text import aligned, line, progress, scalars, table
from lightning_lottery.report.verdict import interval_text, verdict_text, word_text

__all__ = [
    "aligned",
    "can_draw",
    "curves",
    "figure",
    "has_equal_densities",
    "interval_text",
    "line",
    "progress",
    "save_figure",
    "scalars",
    "table",
    "verdict_text",
    "word_text",
]

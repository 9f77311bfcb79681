"""What people read and look at: lines of text, tables, figures."""

from lightning_lottery.report.figures import can_draw, curves, figure, has_equal_densities, save_figure
from lightning_lottery.report.text import aligned, cost_line, cost_table, line, progress, scalars, table
from lightning_lottery.report.tickets import ascii_bars, overlap_text, ticket_text
from lightning_lottery.report.verdict import interval_text, verdict_text, word_text

__all__ = [
    "aligned",
    "ascii_bars",
    "can_draw",
    "cost_line",
    "cost_table",
    "curves",
    "figure",
    "has_equal_densities",
    "interval_text",
    "line",
    "overlap_text",
    "progress",
    "save_figure",
    "scalars",
    "table",
    "ticket_text",
    "verdict_text",
    "word_text",
]

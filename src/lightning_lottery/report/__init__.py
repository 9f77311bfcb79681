"""What people read and look at: lines of text, tables, figures."""

from lightning_lottery.report.figures import Drawing, accuracy, can_draw
from lightning_lottery.report.page import Experiment, Report, can_write_report, name_of, report_after_training
from lightning_lottery.report.text import aligned, cost_table, line, progress, scalars, table
from lightning_lottery.report.tickets import ascii_bars, overlap_text, ticket_text
from lightning_lottery.report.verdict import interval_text, verdict_text, word_text
from lightning_lottery.report.words import percent, value_text

__all__ = [
    "Drawing",
    "Experiment",
    "Report",
    "accuracy",
    "aligned",
    "ascii_bars",
    "can_draw",
    "can_write_report",
    "cost_table",
    "interval_text",
    "line",
    "name_of",
    "overlap_text",
    "percent",
    "progress",
    "report_after_training",
    "scalars",
    "table",
    "ticket_text",
    "value_text",
    "verdict_text",
    "word_text",
]

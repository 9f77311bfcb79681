"""What people read and look at: lines of text, tables, figures."""

from lightning_lottery.report.figures import can_draw, curves, figure, save_figure
from lightning_lottery.report.text import aligned, line, progress, scalars, table

__all__ = ["aligned", "can_draw", "curves", "figure", "line", "progress", "save_figure", "scalars", "table"]

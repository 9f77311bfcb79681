"""What the page shows of several experiments side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_lottery.report import figures
from lightning_lottery.report.page.experiment import Experiment
from lightning_lottery.report.page.tables import Table, comparison_table


@dataclass(frozen=True)
class Comparison:
    """Several experiments side by side.

    Attributes:
        drawing: Their tickets in one figure; ``None`` if they have no metric in common.
        table: Their answers.
    """

    drawing: figures.Drawing | None
    table: Table

    @classmethod
    def of(cls, experiments: Sequence[Experiment]) -> Comparison:
        """Compares experiments."""
        verdicts = {one.name: one.verdict for one in experiments if one.verdict is not None}
        questions = {(verdict.question.metric, verdict.question.is_test) for verdict in verdicts.values()}
        drawing = figures.compared(verdicts) if len(questions) == 1 else None
        return cls(drawing, comparison_table(experiments))

"""All that the page shows of one experiment, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lightning_lottery.analysis import FirstLayer, PaperComparison, compare_with_paper, layer_densities
from lightning_lottery.report import figures
from lightning_lottery.report.figures import Drawing
from lightning_lottery.report.headline import Headline
from lightning_lottery.report.page.experiment import Experiment
from lightning_lottery.report.page.notes import published_notes, step_notes, verdict_notes
from lightning_lottery.report.page.setup import Setup
from lightning_lottery.report.page.tables import (
    Table,
    control_table,
    cost_table,
    published_table,
    size_table,
    step_table,
    ticket_table,
)
from lightning_lottery.report.words import base_name, branch_name

_MOST_IMAGES = 4
Part = TypeVar("Part")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        drawings: Its figures.
        tables: Its tables.
        notes: What they mean.
    """

    title: str
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()

    @property
    def is_pair(self) -> bool:
        """Whether the table fits beside the figure: there is one of each, and the table is small."""
        if len(self.drawings) != 1 or len(self.tables) != 1:
            return False
        return len(self.tables[0].rows) < 13 and len(self.tables[0].header) < 5


@dataclass(frozen=True)
class Body:
    """All that the page shows of one experiment.

    Attributes:
        experiment: The experiment.
        headline: Its answer.
        sections: Figures and tables.
        setup: How it was made.
    """

    experiment: Experiment
    headline: Headline
    sections: Sequence[Section]
    setup: Setup

    @classmethod
    def of(cls, experiment: Experiment) -> Body:
        """Draws the figures and fills the tables. What is unknown is left out.

        Raises:
            TicketError: A ticket is damaged.
        """
        sections = [
            _results(experiment),
            *_published(experiment),
            _learning(experiment),
            _steps(experiment),
            _survivors(experiment),
            Section("Size and cost", tables=_known(size_table(experiment.runs), cost_table(experiment.runs))),
        ]
        return cls(
            experiment,
            experiment.headline,
            [section for section in sections if section.drawings or section.tables or section.notes],
            Setup.of(experiment.runs),
        )

    @property
    def drawings(self) -> list[Drawing]:
        """All figures."""
        return [drawing for section in self.sections for drawing in section.drawings]


def _results(experiment: Experiment) -> Section:
    verdict = experiment.verdict
    if verdict is None or not any(row.metric.n for row in verdict.rows):
        return Section("Results")
    has_controls = any(row.id.is_control for row in verdict.rows)
    drawings = [figures.accuracy(verdict, alone) for alone in ((False, True) if has_controls else (False,))]
    tables = _known(ticket_table(verdict), control_table(verdict))
    return Section(f"{verdict.question.metric} against density", drawings, tables, verdict_notes(verdict))


def _published(experiment: Experiment) -> list[Section]:
    """The published numbers, if the experiment is one of a paper that the package knows."""
    if experiment.verdict is None:
        return []
    return [
        Section(
            _compared_title(comparison),
            [figures.published(comparison)],
            [published_table(comparison)],
            published_notes(comparison),
        )
        for comparison in compare_with_paper(experiment.runs, experiment.verdict.question)
    ]


def _compared_title(comparison: PaperComparison) -> str:
    what = branch_name(comparison.branch)
    return f"{what[0].upper()}{what[1:]}, compared with {comparison.published.paper.authors}"


def _learning(experiment: Experiment) -> Section:
    drawings = _known(figures.learning_curves(experiment.runs), figures.control_curves(experiment.runs))
    return Section("Learning curves", drawings, notes=[] if drawings else _why_no_curves(experiment))


def _why_no_curves(experiment: Experiment) -> list[str]:
    if any(record.curve for run in experiment.runs.values() for record in run.records):
        return ["The curves of the seeds have no step in common."]
    if experiment.densities and not any(run.monitor for run in experiment.runs.values()):
        return ["Curves are recorded only for a monitored metric."]
    return []


def _steps(experiment: Experiment) -> Section:
    verdict = experiment.verdict
    drawing = None if verdict is None else figures.steps_to_dense(verdict)
    if verdict is None or drawing is None:
        return Section("Steps")
    monitor = next(iter(experiment.runs.values())).monitor
    title = f"Steps to reach the {monitor} of the {base_name(verdict)}"
    return Section(title, [drawing], [step_table(verdict)], step_notes(verdict))


def _survivors(experiment: Experiment) -> Section:
    pruned = [number for number in experiment.densities if number > 0]
    images = FirstLayer.of(experiment.runs, figures.spread(pruned, _MOST_IMAGES)) if pruned else None
    layers = figures.layers(layer_densities(experiment.runs), experiment.densities) if pruned else None
    first = None if images is None else figures.first_layer(images, experiment.densities)
    return Section("Where the survivors are", _known(layers, first))


def _known(*parts: Part | None) -> list[Part]:
    return [part for part in parts if part is not None]

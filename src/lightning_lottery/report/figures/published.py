"""The figure of a run over published numbers."""

from __future__ import annotations

from math import nan

from lightning_lottery.analysis import PaperComparison
from lightning_lottery.literature import Published
from lightning_lottery.report.figures.accuracy import Series
from lightning_lottery.report.figures.drawing import (
    Drawing,
    finish,
    legend,
    literal,
    new_figure,
    scale_densities,
    styles,
)
from lightning_lottery.report.words import branch_name, metric_name, percent
from lightning_lottery.tickets import TICKET_BRANCH

_THEIRS = ("#999999", "D")


def published(comparison: PaperComparison) -> Drawing:
    """Draws the accuracies of the runs over those of the authors, against density."""
    figure, (axes,) = new_figure()
    theirs, ours = _theirs(comparison.published), _ours(comparison)
    for series in (theirs, ours):
        series.draw(axes)
    scale_densities(axes, sorted({*theirs.places, *ours.places}))
    axes.set_ylabel(literal(metric_name(comparison.question).replace(", ", "\n")))
    finish(axes)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
    legend(axes)
    name = "published" if comparison.branch == TICKET_BRANCH else f"published_{comparison.branch}"
    bands = " Bands: one standard deviation." if any([*theirs.halves, *ours.halves]) else ""
    return Drawing(name, figure, _alt(comparison), f"{_caption(comparison.published)}{bands}")


def _theirs(numbers: Published) -> Series:
    values = list(numbers.values.values())
    return Series(
        numbers.paper.authors,
        *_THEIRS,
        places=list(numbers.values),
        values=[value.mean for value in values],
        halves=[value.deviation or 0.0 for value in values],
        is_partial=[False] * len(values),
    )


def _ours(comparison: PaperComparison) -> Series:
    rows = [row for row in comparison.rows if row.ours.n]
    most = max(row.ours.n for row in rows)
    return Series(
        f"these runs ({branch_name(comparison.branch)})",
        *styles([TICKET_BRANCH, comparison.branch])[comparison.branch],
        places=[row.density for row in rows],
        values=[nan if row.ours.mean is None else row.ours.mean for row in rows],
        halves=[row.ours.deviation or 0.0 for row in rows],
        is_partial=[row.ours.n < most for row in rows],
    )


def _caption(numbers: Published) -> str:
    return (
        f"Grey: test accuracy of {numbers.network.name} on {numbers.network.dataset} in {numbers.paper.authors}: "
        f"{numbers.about} ({numbers.method}), {numbers.pruning} pruning."
    )


def _alt(comparison: PaperComparison) -> str:
    points = [
        f"{percent(row.density)}: {row.ours.mean:.4g} in these runs"
        + ("" if row.theirs is None else f", {row.theirs.mean:.4g} published")
        for row in comparison.rows
        if row.ours.mean is not None
    ]
    return f"Accuracy against density, and that of {comparison.published.paper.authors}. {'; '.join(points)}."

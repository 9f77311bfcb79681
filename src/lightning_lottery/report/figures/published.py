"""The figure of tickets beside published numbers."""

from __future__ import annotations

from math import nan

from lightning_lottery.analysis import Beside
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


def published(beside: Beside) -> Drawing:
    """Draws our accuracies over those of the authors, against density."""
    figure, (axes,) = new_figure()
    numbers = beside.published
    values = list(numbers.values.values())
    colour, marker = _THEIRS
    Series(
        numbers.paper.authors,
        colour,
        marker,
        list(numbers.values),
        [value.mean for value in values],
        [value.deviation or 0.0 for value in values],
        [False] * len(values),
    ).draw(axes)
    rows = [row for row in beside.rows if row.ours.n]
    colour, marker = styles([TICKET_BRANCH, beside.branch])[beside.branch]
    most = max(row.ours.n for row in rows)
    Series(
        f"these runs ({branch_name(beside.branch)})",
        colour,
        marker,
        [row.density for row in rows],
        [nan if row.ours.mean is None else row.ours.mean for row in rows],
        [row.ours.deviation or 0.0 for row in rows],
        [row.ours.n < most for row in rows],
    ).draw(axes)
    scale_densities(axes, sorted({*numbers.values, *(row.density for row in rows)}))
    axes.set_ylabel(literal(metric_name(beside.question).replace(", ", "\n")))
    finish(axes)
    legend(axes)
    name = "published" if beside.branch == TICKET_BRANCH else f"published_{beside.branch}"
    return Drawing(name, figure, _alt(beside), f"{_caption(beside)} Bands: one standard deviation.")


def _caption(beside: Beside) -> str:
    numbers = beside.published
    return (
        f"Grey: {numbers.network.name} on {numbers.network.dataset}, {numbers.method}, {numbers.pruning} pruning, "
        f"test accuracy in {numbers.paper.authors}."
    )


def _alt(beside: Beside) -> str:
    points = [
        f"{percent(row.density)}: {row.ours.mean:.4g} here"
        + ("" if row.theirs is None else f", {row.theirs.mean:.4g} published")
        for row in beside.rows
        if row.ours.mean is not None
    ]
    return f"Accuracy against density, beside {beside.published.paper.authors}. {'; '.join(points)}."

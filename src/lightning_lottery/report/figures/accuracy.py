"""The figure of a metric against density: tickets, controls and the dense network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any

from lightning_lottery.analysis import Quantity, Verdict, VerdictRow
from lightning_lottery.report.figures.drawing import (
    SOFT,
    Drawing,
    finish,
    legend,
    literal,
    new_figure,
    scale_densities,
    scale_rounds,
    styles,
)
from lightning_lottery.report.words import base_name, branch_name, metric_name, percent
from lightning_lottery.tickets import TICKET_BRANCH, RoundId

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Series:
    """What one branch has measured, for a curve with a band.

    Attributes:
        label: What the legend says.
        colour: As ``#rrggbb``.
        marker: The marker, as in matplotlib.
        places: Where the points are on the horizontal axis: densities, or rounds.
        values: Their mean values; NaN if unknown, which interrupts the line.
        halves: Half of the height of the band at each point: a standard deviation over the seeds; 0 for one seed.
        is_partial: Whether some seeds lack a value. Such points are hollow.
        is_dashed: Whether the line is dashed, as those of controls are.
    """

    label: str
    colour: str
    marker: str
    places: Sequence[float]
    values: Sequence[float]
    halves: Sequence[float]
    is_partial: Sequence[bool]
    is_dashed: bool = False

    def draw(self, axes: Axes) -> None:
        """Draws the curve and its band."""
        style: dict[str, Any] = {"color": self.colour, "marker": self.marker, "markersize": 4.5}
        axes.plot(self.places, self.values, "--" if self.is_dashed else "-", label=literal(self.label), **style)
        points = zip(self.places, self.values, self.is_partial, strict=True)
        if hollow := [(place, value) for place, value, is_partial in points if is_partial]:
            axes.plot(*zip(*hollow, strict=True), linestyle="none", markerfacecolor="#ffffff", **style)
        if any(self.halves):
            low = [value - half for value, half in zip(self.values, self.halves, strict=True)]
            high = [value + half for value, half in zip(self.values, self.halves, strict=True)]
            axes.fill_between(self.places, low, high, color=self.colour, alpha=0.16, linewidth=0)


def has_equal_densities(verdict: Verdict) -> bool:
    """Whether tickets have the same density, so that figures must tell them apart by their rounds."""
    densities = [verdict[number].density for number in verdict]
    return len(set(densities)) < len(densities)


def series_of(
    verdict: Verdict, take: Callable[[VerdictRow], Quantity | None], expected: Callable[[VerdictRow], int]
) -> dict[str, Series]:
    """The curves of all branches.

    Args:
        verdict: The verdict.
        take: The quantity of a row to show.
        expected: The number of seeds that should have a value.

    Returns:
        The curves by branch; branches without a value are left out.
    """
    by_round, found = has_equal_densities(verdict), {}
    for branch, (colour, marker) in styles(verdict.branches()).items():
        shown = [(row, quantity) for row in verdict[branch].values() if (quantity := take(row)) is not None]
        if any(quantity.n for _, quantity in shown):
            found[branch] = Series(
                branch_name(branch),
                colour,
                marker,
                places=[row.round if by_round else row.density for row, _ in shown],
                values=[nan if quantity.mean is None else quantity.mean for _, quantity in shown],
                halves=[quantity.deviation or 0.0 for _, quantity in shown],
                is_partial=[0 < quantity.n < expected(row) for row, quantity in shown],
                is_dashed=not RoundId(0, branch).is_ticket,
            )
    return found


def draw_series(axes: Axes, series: Mapping[str, Series], verdict: Verdict, dense: float | None) -> None:
    """Draws curves over density, with a dotted line at the value of round 0."""
    for one in series.values():
        one.draw(axes)
    if dense is not None:
        axes.axhline(dense, color=SOFT, linewidth=1, linestyle=":", label=base_name(verdict))
    if has_equal_densities(verdict):
        scale_rounds(axes)
    else:
        scale_densities(axes, sorted({row.density for row in verdict.rows}))
    finish(axes)
    legend(axes)


def accuracy(verdict: Verdict, tickets_alone: bool = False) -> Drawing:
    """Draws the metric against density, one curve per branch.

    Args:
        verdict: The verdict.
        tickets_alone: Whether to leave out the controls, which differ much more than the tickets.
    """
    figure, (axes,) = new_figure()
    _draw(axes, verdict, tickets_alone)
    what = "Tickets alone" if tickets_alone else "Tickets and controls" if _has_controls(verdict) else "Tickets"
    name = "tickets" if tickets_alone else "accuracy"
    return Drawing(name, figure, _alt(verdict, tickets_alone), f"{what}. {_key(verdict)}")


def overview(verdict: Verdict) -> Drawing:
    """Draws the metric against density, and with controls a second panel for the tickets alone."""
    has_controls = _has_controls(verdict)
    figure, panels = new_figure(9.0 if has_controls else 4.6, 3.2, 2 if has_controls else 1)
    for axes, tickets_alone in zip(panels, (False, True), strict=False):
        _draw(axes, verdict, tickets_alone)
        if has_controls:
            axes.set_title("tickets alone" if tickets_alone else "tickets and controls", fontsize=9.5)
    return Drawing("accuracy", figure, _alt(verdict), _key(verdict))


def _key(verdict: Verdict) -> str:
    """What the parts of the figure mean."""
    bands = " Bands: one standard deviation over the seeds." if len(verdict.seeds) > 1 else ""
    axis = "" if has_equal_densities(verdict) else " The axis of densities is logarithmic."
    return f"Dotted: the {base_name(verdict)}.{bands}{axis}"


def _alt(verdict: Verdict, tickets_alone: bool = False) -> str:
    """What a figure of the metric against density shows, in words."""
    rows = [row for row in verdict.rows if row.metric.mean is not None]
    points = [
        f"{branch_name(row.branch)} with {percent(row.density)}: {row.metric.mean:.4g}"
        for row in rows
        if row.id.is_ticket or not tickets_alone
    ]
    return f"{metric_name(verdict.question)} against density. {'; '.join(points)}."


def _has_controls(verdict: Verdict) -> bool:
    return any(row.id.is_control for row in verdict.rows)


def _draw(axes: Axes, verdict: Verdict, tickets_alone: bool) -> None:
    series = series_of(verdict, lambda row: row.metric, lambda row: len(verdict.seeds))
    if tickets_alone:
        series = {branch: one for branch, one in series.items() if branch == TICKET_BRANCH}
    draw_series(axes, series, verdict, verdict[0].metric.mean if 0 in verdict else None)
    axes.set_ylabel(literal(metric_name(verdict.question).replace(", ", "\n")))


def compared(verdicts: Mapping[str, Verdict]) -> Drawing:
    """Draws the tickets of several experiments, with a dotted line for the dense network of each.

    Args:
        verdicts: The verdicts by name. They must be about the same metric.
    """
    figure, (axes,) = new_figure()
    densities: set[float] = set()
    ends = []
    for (name, verdict), (colour, marker) in zip(verdicts.items(), styles(verdicts).values(), strict=True):
        rows = [row for row in map(verdict.__getitem__, verdict) if row.metric.mean is not None]
        places, values = [row.density for row in rows], [row.metric.mean or 0.0 for row in rows]
        halves = [row.metric.deviation or 0.0 for row in rows]
        Series(name, colour, marker, places, values, halves, [False] * len(rows)).draw(axes)
        densities |= set(places)
        ends += [f"{name} with {percent(place)}: {value:.4g}" for place, value in zip(places, values, strict=True)]
        if 0 in verdict and verdict[0].metric.mean is not None:
            axes.axhline(verdict[0].metric.mean, color=colour, linewidth=1, linestyle=":")
    scale_densities(axes, sorted(densities))
    question = next(iter(verdicts.values())).question
    axes.set_ylabel(literal(metric_name(question).replace(", ", "\n")))
    finish(axes)
    legend(axes)
    caption = (
        "The tickets of all experiments. Dotted: their dense networks. Bands: one standard deviation over seeds."
    )
    return Drawing("accuracy", figure, f"{metric_name(question)} against density. {'; '.join(ends)}.", caption)

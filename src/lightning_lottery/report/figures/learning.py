"""The figures of how fast trainings learn: learning curves, and the steps to the value of the dense network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_lottery.analysis import Verdict, full_trainings, mean_curve
from lightning_lottery.report.figures.accuracy import draw_series, has_equal_densities, series_of
from lightning_lottery.report.figures.drawing import (
    DARK,
    INK,
    Drawing,
    finish,
    gradient,
    legend,
    literal,
    new_figure,
    styles,
    whole_steps,
)
from lightning_lottery.report.words import base_name, branch_name, percent, round_0_name
from lightning_lottery.storage import RoundRecord, Runs
from lightning_lottery.tickets import RoundId

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_LABELS = 7
_FEWEST_STEPS = 2  # later trainings that reach the value, for a figure


def learning_curves(runs: Runs) -> Drawing | None:
    """Draws the learning curves of all tickets over each other: means over the seeds.

    Args:
        runs: The runs of one experiment, by seed.

    Returns:
        The figure; ``None`` if no curve is known.
    """
    tickets = [entry for entry in full_trainings(runs) if entry.is_ticket]
    found = {entry: curve for entry in tickets if (curve := _curve(runs, entry))}
    if not found:
        return None
    has_repeats = len({_record(runs, entry).density for entry in found}) < len(found)
    figure, (axes,) = new_figure()
    colours, every = gradient(len(found)), -(-len(found) // _MOST_LABELS)
    for place, ((entry, curve), (colour, _)) in enumerate(zip(found.items(), colours, strict=True)):
        has_label = place % every == 0 or place == len(found) - 1
        density = percent(_record(runs, entry).density)
        label = (f"{density}, round {entry.number}" if has_repeats else density) if has_label else None
        style = "--" if entry.number == 0 else "-"
        axes.plot(
            *zip(*curve, strict=True),
            style,
            color=INK if entry.number == 0 else colour,
            linewidth=1.3,
            label=label,
        )
    axes.set_xlabel("step")
    whole_steps(axes.xaxis)
    axes.set_ylabel(literal(_monitor(runs)))
    finish(axes)
    legend(axes, "density", columns=2)
    ends = [f"with {percent(_record(runs, entry).density)}: {curve[-1][1]:.4g}" for entry, curve in found.items()]
    return Drawing(
        "learning_curves",
        figure,
        f"{_monitor(runs)} over the steps of each training. Last values: {'; '.join(ends)}.",
        f"The tickets of all rounds.{_means(runs)}{_named(len(found), every)}",
        {**DARK, **dict(colours)},
    )


def control_curves(runs: Runs) -> Drawing | None:
    """Draws the learning curves of the smallest ticket with controls, of these controls, and of round 0.

    Args:
        runs: The runs of one experiment, by seed.

    Returns:
        The figure; ``None`` if there are no controls, or no curves.
    """
    trainings = full_trainings(runs)
    number = max((entry.number for entry in trainings if entry.is_control), default=None)
    if number is None:
        return None
    shown = [e for e in trainings if e == RoundId(0) or e.number == number]
    found = {entry: curve for entry in shown if (curve := _curve(runs, entry))}
    if not any(entry.is_control for entry in found):
        return None
    figure, (axes,) = new_figure()
    own = styles(dict.fromkeys(entry.branch for entry in trainings))
    for entry, curve in found.items():
        colour = INK if entry == RoundId(0) else own[entry.branch][0]
        style = "-" if entry == RoundId(number) else "--"
        first = round_0_name(_record(runs, RoundId(0)).density) if entry == RoundId(0) else "ticket"
        label = branch_name(entry.branch) if entry.is_control else first
        axes.plot(*zip(*curve, strict=True), style, color=colour, linewidth=1.3, label=label)
    axes.set_xlabel("step")
    whole_steps(axes.xaxis)
    axes.set_ylabel(literal(_monitor(runs)))
    finish(axes)
    legend(
        axes, f"density {percent(_record(runs, RoundId(number)).density)}" if RoundId(number) in found else None
    )
    ends = [
        f"{branch_name(entry.branch)} of round {entry.number}: {curve[-1][1]:.4g}"
        for entry, curve in found.items()
    ]
    alt = f"{_monitor(runs)} over the steps of the ticket of round {number} and its controls. Last values: "
    caption = f"A ticket of round {number}, its controls, and round 0.{_means(runs)}"
    return Drawing("control_curves", figure, f"{alt}{'; '.join(ends)}.", caption)


def steps_to_dense(verdict: Verdict) -> Drawing | None:
    """Draws the step at which each training first reaches the value of round 0 with the same seed.

    Args:
        verdict: The verdict, asked with ``reach="dense"``.

    Returns:
        The figure; ``None`` if no later training reaches it.
    """
    series = series_of(verdict, lambda row: row.steps, lambda row: len(row.seeds_with_curve))
    later = [row for row in verdict.rows if row.id != RoundId(0) and row.steps is not None and row.steps.n]
    if len(later) < _FEWEST_STEPS:
        return None
    dense = verdict[0].steps
    figure, (axes,) = new_figure()
    draw_series(axes, series, verdict, None if dense is None else dense.mean)
    axes.set_ylabel("step at which it is reached")
    axes.set_ylim(bottom=0)
    whole_steps(axes.yaxis)
    _mark_those_that_never_do(axes, verdict)
    reached = [
        f"{branch_name(row.branch)} with {percent(row.density)}: "
        + ("never" if row.steps.mean is None else f"step {row.steps.mean:.0f}")
        for row in verdict.rows
        if row.steps is not None
    ]
    alt = f"Step at which the value of the {base_name(verdict)} is first reached. {'; '.join(reached)}."
    few = " Hollow: not with all seeds, so the mean is of those that do." if len(verdict.seeds) > 1 else ""
    caption = f"The first step at which a ticket is as good as round 0 with the same seed. Cross: never.{few}"
    return Drawing("steps", figure, alt, caption)


def _mark_those_that_never_do(axes: Axes, verdict: Verdict) -> None:
    """Puts a cross above each ticket that never reaches the value of round 0, with any seed."""
    by_round = has_equal_densities(verdict)
    for row in verdict.rows:
        if row.id.is_ticket and row.steps is not None and row.seeds_with_curve and not row.steps.n:
            place = row.round if by_round else row.density
            axes.plot(place, 0.97, "x", color="#0072b2", transform=axes.get_xaxis_transform(), clip_on=False)


def _record(runs: Runs, entry: RoundId) -> RoundRecord:
    return next(record for run in runs.values() for record in run.records if record.id == entry)


def _curve(runs: Runs, entry: RoundId) -> Sequence[tuple[int, float]]:
    """The mean learning curve of a training, over the seeds that have it."""
    return mean_curve([record.curve for run in runs.values() for record in run.records if record.id == entry])


def _named(count: int, every: int) -> str:
    return "" if every == 1 else f" The legend names only some of the {count} densities."


def _means(runs: Runs) -> str:
    return " Means over the seeds, as far as all of them go." if len(runs) > 1 else ""


def _monitor(runs: Runs) -> str:
    return str(next(iter(runs.values())).monitor)

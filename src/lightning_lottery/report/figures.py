"""The figure of a metric against density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from itertools import cycle
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_lottery.files import write_atomically
from lightning_lottery.storage import Records
from lightning_lottery.tickets import SEARCH_BRANCH, TICKET_BRANCH, RoundId

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that colour-blind readers can distinguish (Okabe & Ito); the markers differ in greyscale.
_STYLES = {TICKET_BRANCH: ("#0072B2", "o"), "reinitialize": ("#D55E00", "s"), "shuffle_mask": ("#009E73", "^")}
_OTHER_STYLES = (
    ("#CC79A7", "D"),
    ("#E69F00", "v"),
    ("#56B4E9", "P"),
    ("#000000", "X"),
    ("#7F6000", "*"),
    ("#999999", "<"),
)


def has_equal_densities(records: Records) -> bool:
    """Whether tickets have the same density, so that a figure must tell them apart by their rounds."""
    densities = [record.density for record in records[TICKET_BRANCH].values()]
    return len(set(densities)) < len(densities)


def curves(records: Records, metric: str, by_round: bool = False) -> dict[str, list[tuple[float, float]]]:
    """The final values of a metric: (density, value) pairs by branch, starting with the dense round.

    Search rounds, whose trainings are shorter, are left out.

    Args:
        records: The records.
        metric: The name of the metric.
        by_round: Whether to return (round, value) pairs instead.
    """
    return {
        branch: [
            (record.round if by_round else record.density, record.metrics[metric])
            for record in records[branch].values()
            if isfinite(record.metrics.get(metric, nan))
        ]
        for branch in records.branches()
        if branch != SEARCH_BRANCH
    }


def figure(
    points: Mapping[str, Sequence[tuple[float, float]]],
    metric: str,
    spread: Mapping[str, Sequence[float]] | None = None,
    title: str | None = None,
    is_wide: bool = True,
    start: float = 1.0,
    by_round: bool = False,
) -> Figure:
    """Draws a metric against density, one curve per branch, with the dense network on the left.

    With controls there is a second panel for the tickets alone, whose differences are small compared with those of
    the controls.

    Args:
        points: (density, value) pairs by branch, as returned by :func:`curves`.
        metric: The label of the values.
        spread: Half-height of a band around each point, by branch.
        title: The title of the figure.
        is_wide: Whether there is room for a second panel. Otherwise the figure is square, for loggers.
        start: The density of round 0; a dotted line marks its value.
        by_round: Whether the first number of a pair is the round, not the density.

    Returns:
        A matplotlib figure that is not shown in a window.

    Raises:
        ModuleNotFoundError: matplotlib is missing. Write ``pip install 'lightning-lottery[report]'``.
    """
    from matplotlib.figure import Figure

    panels: list[Mapping[str, Sequence[tuple[float, float]]]] = [points]
    if len(points) > 1 and is_wide:
        panels.append({TICKET_BRANCH: points[TICKET_BRANCH]} if TICKET_BRANCH in points else {})
    size = (6.5 * len(panels), 4.4) if is_wide else (5.0, 5.0)
    drawing = Figure(figsize=size, dpi=120, layout="constrained")
    for axes, shown in zip(drawing.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, shown, spread or {}, start, by_round)
        axes.set_ylabel(metric)
        if len(panels) > 1:
            axes.set_title("tickets and controls" if shown is points else "tickets alone", fontsize="medium")
    if title:
        drawing.suptitle(title)
    return drawing


def _draw(
    axes: Axes,
    points: Mapping[str, Sequence[tuple[float, float]]],
    spread: Mapping[str, Sequence[float]],
    start: float,
    by_round: bool,
) -> None:
    from matplotlib.ticker import MaxNLocator

    others = cycle(_OTHER_STYLES)
    for branch, pairs in points.items():
        colour, marker = _STYLES.get(branch) or next(others)
        densities, values = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        dashes = "-" if RoundId(0, branch).is_ticket else "--"
        label = branch.replace("_", " ")
        axes.plot(densities, values, dashes, marker=marker, markersize=5, color=colour, label=label)
        if branch in spread:
            low = [value - half for value, half in zip(values, spread[branch], strict=True)]
            high = [value + half for value, half in zip(values, spread[branch], strict=True)]
            axes.fill_between(densities, low, high, color=colour, alpha=0.15, linewidth=0)
    first = [value for place, value in points.get(TICKET_BRANCH, ()) if place == (0 if by_round else start)]
    if first:
        label = "dense network" if start == 1 else "starting ticket"
        axes.axhline(first[0], color="0.5", linewidth=1, linestyle=":", label=label)
    if by_round:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("round (several have the same density)")
    else:
        _scale_densities(axes, sorted({density for pairs in points.values() for density, _ in pairs}))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _scale_densities(axes: Axes, densities: Sequence[float]) -> None:
    """Makes the horizontal axis one of densities: logarithmic, and falling."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(_apart(densities))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("density (weights kept / prunable weights)")


def save_figure(drawing: Figure, path: Path) -> None:
    """Writes a figure as a PNG file, atomically."""
    content = BytesIO()
    drawing.savefig(content, format="png")
    write_atomically(path, content.getvalue())


def _apart(densities: Sequence[float]) -> list[float]:
    """Drops ticks whose labels would overlap the label of their larger neighbour on a logarithmic axis."""
    if not densities:
        return []
    span = densities[-1] / densities[0]
    apart: list[float] = []
    for density in reversed(densities):
        if not apart or apart[-1] / density >= span ** (1 / 9):
            apart.append(density)
    return apart


def can_draw() -> bool:
    """Whether matplotlib is installed (``pip install 'lightning-lottery[report]'``)."""
    return find_spec("matplotlib") is not None

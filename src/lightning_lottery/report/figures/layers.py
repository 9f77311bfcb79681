"""The figures of where the survivors are: densities of layers, and the first layer of a network for images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from lightning_lottery.analysis import FirstLayer
from lightning_lottery.report.figures.drawing import INK, SOFT, Drawing, finish, literal, new_figure
from lightning_lottery.report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Item = TypeVar("Item")
_MOST_LAYERS = 60  # rows of the heat map
_MOST_NUMBERS = 40  # rows, if there are numbers in them
_MOST_TICKS = 8
_LEAST = 1e-4  # smaller densities have the colour of this one
_LONGEST_NAME = 22
_MOST_FILTERS = 100


def layers(by_round: Mapping[int, Mapping[str, float]], densities: Mapping[int, float]) -> Drawing | None:
    """Draws the density of every layer over the rounds as a heat map.

    Args:
        by_round: The densities of the layers, by round and name.
        densities: The density of the whole ticket, by round.

    Returns:
        The figure; ``None`` if there is nothing to draw.
    """
    from matplotlib.colors import LogNorm

    if not by_round:
        return None
    rounds, names = list(by_round), list(by_round[max(by_round)])
    shown = spread(names, _MOST_LAYERS)
    table = [[by_round[number].get(name, 1.0) for number in rounds] for name in shown]
    clamped = [[max(density, _LEAST) for density in row] for row in table]
    figure, (axes,) = new_figure(height=1.0 + max(0.22 * len(shown), 0.9))
    least = min(map(min, clamped))
    norm = LogNorm(vmin=min(least, 0.5), vmax=1.0)
    mesh = axes.pcolormesh(clamped, norm=norm, cmap="viridis", edgecolors="face", linewidth=0.2)
    axes.invert_yaxis()
    every = -(-len(rounds) // _MOST_TICKS)
    ticks = [(place + 0.5, _tick(number, densities)) for place, number in enumerate(rounds) if place % every == 0]
    axes.set_xticks(*map(list, zip(*ticks, strict=True)))
    axes.set_yticks([place + 0.5 for place in range(len(shown))], _short(shown))
    axes.set_xlabel("round, and density of the ticket in %")
    if len(rounds) <= _MOST_TICKS and len(shown) <= _MOST_NUMBERS:
        _write_numbers(axes, table, norm)
    finish(axes, has_grid=False)
    axes.tick_params(length=0, labelsize=7.5)
    _colour_bar(axes, mesh, least)
    last = by_round[rounds[-1]]
    values = "; ".join(f"{name}: {percent(last[name])}" for name in shown if name in last)
    rest = f" {len(shown)} of {len(names)} layers are shown." if len(names) > len(shown) else ""
    alt = f"Densities of the layers over the rounds. In the last: {values}.{rest}"
    return Drawing("layers", figure, alt, f"Density of each layer, in %; of several seeds, the mean.{rest}")


def first_layer(layer: FirstLayer, densities: Mapping[int, float]) -> Drawing:
    """Draws the surviving weights of the first layer as images.

    Args:
        layer: The images. Filters of a convolution are drawn for the last round only.
        densities: The density of the whole ticket, by round.
    """
    from matplotlib import colormaps

    rounds = list(layer.images) if layer.is_pixels else list(layer.images)[-1:]
    height = 1.4 + 1.6 / len(rounds) if layer.is_pixels else 3.4
    figure, panels = new_figure(height=height, panels=len(rounds))
    colours = colormaps["magma"].with_extremes(bad=SOFT)
    for axes, number in zip(panels, rounds, strict=True):
        image = layer.images[number] if layer.is_pixels else _mosaic(layer.images[number][:_MOST_FILTERS])
        largest = float(layer.images[number].max()) or 1.0
        axes.imshow(image.numpy(), cmap=colours, vmin=0.0, vmax=largest, interpolation="nearest")
        density = percent(densities[number]) if number in densities else f"round {number}"
        axes.set_title(f"{density}\nmost: {percent(largest)}", fontsize=8.5)
        finish(axes, has_grid=False, has_frame=True)
        axes.set_xticks([])
        axes.set_yticks([])
    what = (
        "at each pixel of the input" if layer.is_pixels else "at each place of a filter, over its input channels"
    )
    caption = f"Fraction of the weights of {layer.name} that survive {what}. Black: none; brightest: the most."
    return Drawing("first_layer", figure, _first_layer_alt(layer, rounds), caption)


def _first_layer_alt(layer: FirstLayer, rounds: Sequence[int]) -> str:
    if not layer.is_pixels:
        filters = layer.images[rounds[-1]].flatten(1)
        empty = int((filters == 0).all(1).sum())
        return f"The surviving weights of {layer.name}: {empty} of {len(filters)} filters have no weight left."
    dead = [f"{percent(float((layer.images[n] == 0).float().mean()))} in round {n}" for n in rounds]
    return f"Surviving weights of {layer.name} at each pixel of the input. Pixels without any: {', '.join(dead)}."


def _mosaic(filters: Tensor) -> Tensor:
    """Filters side by side, with a line of NaN between them, of shape (height, width)."""
    columns = ceil(sqrt(len(filters)))
    padded = torch.nn.functional.pad(filters, (0, 1, 0, 1), value=torch.nan)
    missing = torch.full((-len(filters) % columns, *padded.shape[1:]), torch.nan)
    rows = torch.split(torch.cat([padded, missing]), columns)
    return torch.cat([torch.cat(list(row), dim=1) for row in rows])[:-1, :-1]


def _write_numbers(axes: Axes, table: Sequence[Sequence[float]], norm: object) -> None:
    for row, values in enumerate(table):
        for column, value in enumerate(values):
            colour = "#fdfdfd" if norm(max(value, _LEAST)) < 0.6 else "#111111"  # type: ignore[operator]
            text = f"{100 * value:.2g}" if value < 0.995 else "100"
            axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7, color=colour)


def _colour_bar(axes: Axes, mesh: object, least: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    bar = axes.figure.colorbar(mesh, cax=axes.inset_axes((1.03, 0.0, 0.03, 1.0)))  # type: ignore[arg-type]
    bar.set_label("density", fontsize=8.5, color=INK)
    ticks = [value for value in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4) if value >= 0.999 * least]
    bar.set_ticks(ticks)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=7.5, colors=INK)
    bar.outline.set_visible(False)


def spread(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of some items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(place * (len(items) - 1) / (most - 1))] for place in range(most)]


def _short(names: Sequence[str]) -> list[str]:
    """Names that fit beside the heat map, if need be without what they have in common."""
    short = [name.removesuffix(".weight") for name in names]
    if max(map(len, short)) > _LONGEST_NAME and len(short) > 1:
        common = ".".join(_common([name.split(".") for name in short]))
        short = [name[len(common) :].lstrip(".") for name in short]
    half = _LONGEST_NAME // 2
    return [literal(name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}") for name in short]


def _common(names: Sequence[Sequence[str]]) -> Sequence[str]:
    """The first parts that all names have in common."""
    shortest = min(map(len, names)) - 1
    alike = [len({name[place] for name in names}) == 1 for place in range(shortest)]
    return names[0][: alike.index(False) if False in alike else shortest]


def _tick(number: int, densities: Mapping[int, float]) -> str:
    return f"{number}\n{100 * densities[number]:.3g}" if number in densities else str(number)

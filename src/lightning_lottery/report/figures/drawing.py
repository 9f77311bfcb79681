"""A figure as SVG for a page in light and dark, and as PNG; and its colours."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO, StringIO
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_lottery.files import write_atomically
from lightning_lottery.tickets import TICKET_BRANCH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

INK, SOFT = "#24292f", "#6e7781"
# What each colour becomes on a dark page. Those of curves are colours that colour-blind readers can distinguish
# (Okabe & Ito).
DARK = {
    INK: "#e6edf3",
    SOFT: "#9aa4af",
    "#000000": "#e6edf3",
    "#ffffff": "#0f1419",
    "#0072b2": "#58a6dd",
    "#d55e00": "#ff9a52",
    "#009e73": "#3fcb9c",
    "#cc79a7": "#e9a3c9",
    "#e69f00": "#f5bd45",
    "#56b4e9": "#9bd4f7",
    "#7f6000": "#c7a53a",
    "#999999": "#c3c3c3",
}

# The markers differ in greyscale.
_STYLES = {TICKET_BRANCH: ("#0072b2", "o"), "reinitialize": ("#d55e00", "s"), "shuffle_mask": ("#009e73", "^")}
_OTHERS = (
    ("#cc79a7", "D"),
    ("#e69f00", "v"),
    ("#56b4e9", "P"),
    (INK, "X"),
    ("#7f6000", "*"),
    ("#999999", "<"),
)


@dataclass(frozen=True)
class Drawing:
    """A figure with what is said about it.

    Attributes:
        name: Its name in the names of files.
        figure: The figure of matplotlib, on white. It is not shown in a window.
        alt: What it shows, in words and numbers, for people who do not see it.
        caption: What its parts mean.
        dark: What each of its colours becomes on a dark page, as ``#rrggbb``.
    """

    name: str
    figure: Figure
    alt: str
    caption: str = ""
    dark: Mapping[str, str] = field(default_factory=lambda: DARK)

    def svg(self, prefix: str) -> str:
        """The figure as an ``<svg>`` element, whose colours follow the colour scheme of its page.

        Args:
            prefix: A prefix for all ids, different for each figure of a page.
        """
        from matplotlib import rc_context

        content = StringIO()
        # Text stays text: it is smaller, can be selected, and gets the font of the page.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lightning-lottery"}):
            self._write(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        element = content.getvalue()
        element = element[element.index("<svg") :].strip()
        element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
        element = re.sub(r'\b(id="|xlink:href="#)|(url\(#)', rf"\g<0>{prefix}", element)
        element = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', element)
        known = re.compile("|".join(rf"{light}\b" for light in self.dark))
        return known.sub(lambda light: f"light-dark({light[0]}, {self.dark[light[0]]})", element)

    def png(self, title: str = "") -> bytes:
        """The figure as the content of a PNG file.

        Args:
            title: What to write above the caption.
        """
        content, letters = BytesIO(), int(15 * self.figure.get_figwidth())
        lines = [textwrap.fill(line, letters) for line in (title, self.caption) if line]
        heading = self.figure.text(0.02, 1.02, literal("\n".join(lines)), fontsize=8.5, color=INK, va="bottom")
        self._write(content, format="png", dpi=200, bbox_inches="tight", pad_inches=0.12)
        heading.remove()
        return content.getvalue()

    def _write(self, content: StringIO | BytesIO, **options: Any) -> None:
        self.figure.savefig(content, **options)
        self.figure.set_layout_engine("none")  # the layout is found, and finding it again takes long

    def save(self, path: Path, title: str = "") -> None:
        """Writes a PNG file, atomically; for the title see :meth:`png`."""
        write_atomically(path, self.png(title))


def new_figure(width: float = 4.2, height: float = 3.0, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure, not shown in a window, with one or more axes side by side.

    Args:
        width: Its width in inches.
        height: Its height in inches.
        panels: The number of axes.

    Raises:
        ModuleNotFoundError: matplotlib is missing. Write ``pip install 'lightning-lottery[report]'``.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06)  # inches around each of the axes
    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def finish(axes: Axes, has_grid: bool = True, has_frame: bool = False) -> None:
    """Gives axes the style that all figures share."""
    axes.tick_params(colors=INK, labelsize=8.5)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
        text.set_fontsize(9.5)
    for spine in axes.spines.values():
        spine.set_edgecolor(SOFT)
        spine.set_visible(has_frame or spine.spine_type in ("left", "bottom"))
    if has_grid:
        axes.grid(color=SOFT, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)


def legend(axes: Axes, title: str | None = None, columns: int = 1) -> None:
    """Adds a legend, if anything has a label."""
    if axes.get_legend_handles_labels()[0]:
        made = axes.legend(fontsize=8.5, labelcolor=INK, title=title, title_fontsize=8.5, ncols=columns)
        made.get_title().set_color(INK)
        # Curves below the legend are seen through it, but do not cross its text.
        made.get_frame().set(facecolor="#ffffff", alpha=0.8, edgecolor="none")


def scale_densities(axes: Axes, densities: Sequence[float]) -> None:
    """Makes the horizontal axis one of densities: logarithmic, and falling."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(_apart(sorted(densities)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("density (weights kept / prunable weights)")


def whole_steps(axis: Axis) -> None:
    """Lets an axis have ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=7, integer=True))


def scale_rounds(axes: Axes) -> None:
    """Makes the horizontal axis one of rounds."""
    whole_steps(axes.xaxis)
    axes.set_xlabel("round (several have the same density)")


def _apart(densities: Sequence[float]) -> list[float]:
    """Drops ticks whose labels would overlap the label of their larger neighbour on a logarithmic axis."""
    if not densities:
        return []
    span = densities[-1] / densities[0]
    apart: list[float] = []
    for density in reversed(densities):
        if not apart or apart[-1] / density >= span ** (1 / 7):
            apart.append(density)
    return apart


def styles(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """A colour and a marker for each branch, the same in all figures; or for each experiment.

    Args:
        names: The names in their order. Some branches have colours of their own.
    """
    names = list(names)
    others = cycle(_OTHERS if TICKET_BRANCH in names else (*_STYLES.values(), *_OTHERS))
    return {name: _STYLES.get(name) or next(others) for name in names}


def gradient(count: int) -> list[tuple[str, str]]:
    """Colours for a sequence, such as that of the rounds: pairs for light and for dark pages."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    colours = colormaps["plasma"]
    places = [index / max(count - 1, 1) for index in range(count)]
    # The ends of the colour map are hard to see on black, and on white.
    return [(to_hex(colours(0.85 * place)), to_hex(colours(0.25 + 0.7 * place))) for place in places]


def literal(text: str) -> str:
    """A text for a figure that is shown as it is: dollars begin no formula, and underscores hide no label."""
    return re.sub(r"^_", " _", text).replace("$", r"\$")


def can_draw() -> bool:
    """Whether matplotlib is installed (``pip install 'lightning-lottery[report]'``)."""
    return find_spec("matplotlib") is not None

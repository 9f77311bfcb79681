"""The report: one HTML page that needs nothing outside it, and its figures as PNG files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path, write_atomically
from lightning_lottery.plain import first_line
from lightning_lottery.report import figures
from lightning_lottery.report.figures import Drawing
from lightning_lottery.report.page.body import Body
from lightning_lottery.report.page.comparison import Comparison
from lightning_lottery.report.page.experiment import Experiment
from lightning_lottery.report.words import typeset
from lightning_lottery.storage import PICTURES

if TYPE_CHECKING:
    from jinja2 import Template

_MOST_NAMES = 3  # in a title


def can_write_report() -> bool:
    """Whether matplotlib and Jinja2 are installed (``pip install 'lightning-lottery[report]'``)."""
    return figures.can_draw() and find_spec("jinja2") is not None


@dataclass(frozen=True)
class Report:
    """A page about one experiment, or about several to compare.

    Attributes:
        bodies: What it shows of each experiment.
        comparison: What it shows of several side by side; ``None`` for one.
        heading: Its title; by default the names of the experiments.
    """

    bodies: Sequence[Body]
    comparison: Comparison | None = None
    heading: str | None = None

    @classmethod
    def of(cls, experiments: Sequence[Experiment], heading: str | None = None) -> Report:
        """Draws the figures and fills the tables.

        Args:
            experiments: What to show, at least one.
            heading: See the attribute.

        Raises:
            ConfigurationError: matplotlib or Jinja2 is not installed.
            TicketError: A ticket is damaged.
        """
        if not can_write_report():
            raise ConfigurationError(
                "A report needs matplotlib and Jinja2. Write pip install 'lightning-lottery[report]'."
            )
        comparison = Comparison.of(experiments) if len(experiments) > 1 else None
        return cls([Body.of(one) for one in experiments], comparison, heading)

    @property
    def title(self) -> str:
        """The heading, or else the names of the experiments."""
        if self.heading is not None:
            return self.heading
        names = [body.experiment.name for body in self.bodies]
        return ", ".join(names) if len(names) <= _MOST_NAMES else f"{len(names)} experiments"

    @property
    def pictures(self) -> list[Drawing]:
        """The figures for PNG files and loggers, each with a name of its own."""
        if self.comparison is not None:
            return [] if self.comparison.drawing is None else [self.comparison.drawing]
        drawings, verdict = self.bodies[0].drawings, self.bodies[0].experiment.verdict
        others = [drawing for drawing in drawings if drawing.name not in ("accuracy", "tickets")]
        if verdict is None or len(others) == len(drawings):
            return others
        return [figures.overview(verdict), *others]  # instead of one figure for each of its panels

    def html(self) -> str:
        """The page, which needs nothing outside it."""
        return _template().render(
            title=self.title,
            bodies=self.bodies,
            comparison=self.comparison,
            svg=_numbered(),
            version=version("lightning-lottery"),
            written=f"{datetime.now().astimezone():%Y-%m-%d %H:%M}",
        )

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Writes the page, and its figures as ``report.png``, ``report_learning_curves.png``, … beside it.

        Figures of an earlier report that this one lacks are removed.

        Args:
            path: The page, such as ``report.html``.

        Returns:
            The paths that were written, the page first.

        Raises:
            ConfigurationError: The path is not one of an HTML file.
            FolderError: A file cannot be written.
        """
        target = local_path(os.fspath(path), "report.html")
        if target.is_dir() or target.suffix.lower() not in (".html", ".htm"):
            raise ConfigurationError(
                f"{str(path)!r} must be the path of a file that ends in .html. Write for example report.html."
            )
        write_atomically(target, self.html().encode())
        paths = {name: target.with_name(f"{target.stem}{ending}.png") for name, ending in PICTURES.items()}
        drawn = {drawing.name: drawing for drawing in self.pictures}
        for name, path in paths.items():
            if name in drawn:
                drawn[name].save(path, self.title)
            else:  # of an earlier report
                path.unlink(missing_ok=True)
        return [target, *(paths[name] for name in drawn)]


def report_after_training(
    make: Callable[[], Experiment | None], path: Path, then: Callable[[Report], None] = lambda report: None
) -> None:
    """Writes a report about trainings that are complete, so that an error is only a warning.

    Args:
        make: Reads the runs; ``None`` if they cannot be found.
        path: The page.
        then: What else to do with the report.
    """
    if not can_write_report():
        return
    try:
        if (experiment := make()) is not None:
            report = Report.of([experiment])
            report.save(path)
            then(report)
    except Exception as error:
        rank_zero_warn(
            f"All trainings are complete, but the report could not be written: {first_line(error)} To try again: "
            f"lightning-lottery report {path.parent}"
        )


@cache
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["typeset"] = typeset
    return environment.get_template("report.html")


def _numbered() -> Callable[[Drawing], str]:
    """Draws figures with ids that are different for each figure of a page."""
    numbers = count(1)
    return lambda drawing: drawing.svg(f"f{next(numbers)}-")

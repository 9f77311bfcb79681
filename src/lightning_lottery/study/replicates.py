"""The runs of a study by seed, as they are read from their folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from typing_extensions import Unpack

from lightning_lottery import report
from lightning_lottery.analysis import Verdict, VerdictOptions, rows_of, verdict_of
from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import local_path
from lightning_lottery.rules import Difference, differences
from lightning_lottery.storage import DESCRIPTION, Replicate

if TYPE_CHECKING:
    from pandas import DataFrame


class Replicates(Mapping[int, Replicate]):
    """The runs of one experiment by seed, in the order of seeds. Read them with :meth:`Study.read`.

    Args:
        replicates: The runs.
        ignore: Patterns of names of hyperparameters that may differ between the runs.

    Raises:
        ConfigurationError: Two runs have the same seed, or are different experiments.
    """

    def __init__(self, replicates: Sequence[Replicate], ignore: Sequence[str] = ()) -> None:
        self._by_seed: dict[int, Replicate] = {}
        for replicate in sorted(replicates, key=lambda replicate: replicate.seed):
            first = next(iter(self._by_seed.values()), replicate)
            if found := differences(first.description, replicate.description, ignore):
                raise ConfigurationError(_not_the_same(first, replicate, found))
            if (other := self._by_seed.setdefault(replicate.seed, replicate)) is not replicate:
                raise ConfigurationError(
                    f"{str(other.path)!r} and {str(replicate.path)!r} have the same seed {replicate.seed}, so "
                    "they are not independent. Read only one of them."
                )

    @classmethod
    def read(cls, paths: Sequence[str | os.PathLike[str]], ignore: Sequence[str] = ()) -> Replicates:
        """Reads all run folders at and below some paths; see :meth:`Study.read`."""
        return cls(read_runs(paths), ignore)

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Replicates:
        """Reads some run folders, the hyperparameters of which may differ. Folders without a run are left out."""
        return cls([found for folder in folders if (found := Replicate.at(folder)) is not None], ignore=["*"])

    def verdict(
        self,
        metric: str | None = None,
        *,
        on: Literal["fit", "test"] | None = None,
        mode: Literal["min", "max"] | None = None,
        at: Literal["best", "end"] | None = None,
        tolerance: float = 0.0,
        reach: float | Literal["dense"] | None = None,
        confidence: float = 0.95,
    ) -> Verdict:
        """Compares all tickets and controls with the dense network of the same seed, and with each other.

        Args:
            metric: The metric to compare: the monitored one (the default), another one that was logged during the
                fit, or one of the test set (see :func:`analysis.record_tests`).
            on: ``"fit"`` or ``"test"``, if a metric of that name was logged during the fit and on the test set. By
                default the former.
            mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are; needed for other metrics
                than the monitored one.
            at: ``"best"`` for the best value of each training, the default for the monitored metric; ``"end"`` for
                the value at its end, the default for others. On the test set, ``"best"`` means the weights with
                the best value of the monitored metric.
            tolerance: How much worse than dense still matches, in units of the metric, at least 0.
            reach: A value of the monitored metric, or ``"dense"`` for that of round 0 with the same seed. The
                steps at which it is first reached are compared, too.
            confidence: The confidence of the intervals, between 0 and 1.

        Returns:
            For each training mean, deviation and paired differences, with intervals and a word: winning, matching
            (within the tolerance), worse, or inconclusive.

        Raises:
            ConfigurationError: The metric is unknown or was not monitored, an argument is invalid, no round has
                finished, or SciPy is not installed.
        """
        options = VerdictOptions(on=on, mode=mode, at=at, tolerance=tolerance, reach=reach, confidence=confidence)
        return verdict_of(self, metric, options)

    def table(self, metric: str | None = None, **options: Unpack[VerdictOptions]) -> str:
        """The verdict as text; for the arguments see :meth:`verdict`."""
        return report.verdict_text(self.verdict(metric, **options))

    def save_report(
        self, path: str | os.PathLike[str], metric: str | None = None, **options: Unpack[VerdictOptions]
    ) -> list[Path]:
        """Writes a page for people about these runs, and its figures as PNG files beside it.

        Args:
            path: The page, such as ``"report.html"``.
            metric: See :meth:`verdict`, also for the other arguments. ``reach`` is ``"dense"`` by default.

        Returns:
            The paths that were written, the page first.

        Raises:
            ConfigurationError: The path is not one of an HTML file, an argument is invalid, or matplotlib, Jinja2
                or SciPy is not installed.
        """
        return report.Report.of([self.experiment(metric, **options)]).save(path)

    def experiment(self, metric: str | None = None, **options: Unpack[VerdictOptions]) -> report.Experiment:
        """These runs for a report; for the arguments see :meth:`save_report`."""
        return report.Experiment.of(report.name_of(self.folder), self, metric, options)

    @property
    def folder(self) -> Path:
        """The folder of the only run, or the one that contains all."""
        return Path(os.path.commonpath([run.path.absolute() for run in self.values()]))

    def to_pandas(self) -> DataFrame:
        """A pandas ``DataFrame`` with one row for each training of each seed.

        Its columns are the seed, the numbers of :class:`RoundRecord`, the last value of every logged metric by its
        name, and test metrics as ``"acc (test, last)"`` and ``"acc (test, best)"``, for the last and the best
        weights.

        Raises:
            ConfigurationError: pandas is not installed.
        """
        if find_spec("pandas") is None:
            raise ConfigurationError("to_pandas() needs pandas, which is not installed. Write pip install pandas.")
        from pandas import DataFrame

        return DataFrame([row for replicate in self.values() for row in rows_of(replicate)])

    def __getitem__(self, seed: int) -> Replicate:
        if seed not in self._by_seed:
            raise KeyError(f"no run with seed {seed!r}; the seeds are {list(self)}")
        return self._by_seed[seed]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_seed)

    def __len__(self) -> int:
        return len(self._by_seed)

    def __repr__(self) -> str:
        states = [f"{seed}: {len(run.records)} of {len(run.plan)} rounds" for seed, run in self.items()]
        return f"Replicates({', '.join(states)})"


def read_runs(paths: Sequence[str | os.PathLike[str]]) -> list[Replicate]:
    """Reads all run folders at and below some paths, finished or not.

    Raises:
        ConfigurationError: A path is not a folder, or no run was found.
        LotteryError: A run folder is damaged.
    """
    local = [local_path(os.fspath(path), "Study.read('runs/exp')") for path in paths]
    for path in local:
        if not path.is_dir():
            raise ConfigurationError(
                f"{str(path)!r} is not a folder. Write the path of a run folder, or of a folder of runs such as "
                "'runs/exp'."
            )
    folders = {folder.resolve(): folder for path in local for folder in _run_folders(path)}
    found = [_whole(folder) for folder in folders.values()]
    if not found:
        shown = ", ".join(repr(str(path)) for path in local)
        raise ConfigurationError(f"No run was found in {shown}. A run folder contains a {DESCRIPTION}.")
    return found


def _whole(folder: Path) -> Replicate:
    replicate = Replicate.at(folder)
    if replicate is None or "seed" not in replicate.description.provenance:
        raise LotteryError(f"{folder / DESCRIPTION} is damaged. Remove the folder, or read others.")
    return replicate


def _run_folders(path: Path) -> Iterator[Path]:
    """All run folders at and below a path, also behind links."""
    seen: set[Path] = set()
    for folder, inside, files in os.walk(path, followlinks=True):
        if (real := Path(folder).resolve()) in seen:  # a circle of links
            inside.clear()
            continue
        seen.add(real)
        inside.sort()
        if DESCRIPTION in files:
            yield Path(folder)


def _not_the_same(first: Replicate, second: Replicate, found: Sequence[Difference]) -> str:
    """The error message for runs that are different experiments."""
    shown = "; ".join(f"{entry.name} is {entry.values[0]!r} and {entry.values[1]!r}" for entry in found[:3])
    names = [entry.name for entry in found]
    only_names = all(entry.part == "hyperparameters" for entry in found)
    return (
        f"{str(first.path)!r} and {str(second.path)!r} are different experiments: {shown}. Read folders of one "
        "experiment only" + (f", or write ignore={names} if that may differ." if only_names else ".")
    )

"""What a report is about: runs that differ only in their seeds, and the verdict on them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from lightning_lottery.analysis import Verdict, VerdictOptions, verdict_of
from lightning_lottery.report.headline import Headline
from lightning_lottery.report.words import metric_name
from lightning_lottery.storage import Replicate, Runs
from lightning_lottery.tickets import TICKET_BRANCH


@dataclass(frozen=True)
class Experiment:
    """Runs that differ only in their seeds, and the verdict on them.

    Attributes:
        name: What the report calls it.
        runs: The runs by seed, finished or not.
        verdict: The verdict, asked with ``reach="dense"`` if a metric was monitored; ``None`` without a metric or
            finished round.
        differs: The arguments and properties in which it differs from the other experiments of the report.
    """

    name: str
    runs: Runs
    verdict: Verdict | None
    differs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        runs: Runs,
        metric: str | None = None,
        options: VerdictOptions | None = None,
        differs: Mapping[str, str] | None = None,
    ) -> Experiment:
        """Compares the trainings of an experiment.

        Args:
            name: What to call it.
            runs: Its runs by seed.
            metric: The metric to compare; by default the monitored one.
            options: See :meth:`Replicates.verdict`.
            differs: See the attribute.

        Raises:
            ConfigurationError: The metric is unknown, an option is invalid, or SciPy, which several seeds need, is
                not installed.
        """
        monitor = next(iter(runs.values())).monitor
        if not any(run.records for run in runs.values()) or (metric is None and monitor is None):
            return cls(name, runs, None, differs or {})
        asked: VerdictOptions = {"reach": None if monitor is None else "dense", **(options or {})}
        return cls(name, runs, verdict_of(runs, metric, asked), differs or {})

    @classmethod
    def at(cls, path: Path) -> Experiment | None:
        """A single run as an experiment, with the verdict on its monitored metric; ``None`` if no run is there.

        Raises:
            LotteryError: Its records are damaged.
        """
        run = Replicate.at(path)
        return None if run is None else cls.of(name_of(path), {run.seed: run})

    @property
    def headline(self) -> Headline:
        """The answer in one number and one sentence."""
        if self.verdict is not None:
            return Headline.of(self.verdict)
        path = os.path.commonpath([run.path for run in self.runs.values()])
        metrics = dict.fromkeys(name for run in self.runs.values() for r in run.records for name in r.metrics)
        return Headline.without_metric(min(self.densities.values(), default=None), path, list(metrics))

    @property
    def densities(self) -> dict[int, float]:
        """The density of the ticket of each round that was trained."""
        tickets = [run.records[TICKET_BRANCH] for run in self.runs.values()]
        return {number: record.density for records in tickets for number, record in sorted(records.items())}

    @property
    def seeds(self) -> str:
        """The number of seeds, or the seed."""
        return f"{len(self.runs)} seeds" if len(self.runs) > 1 else f"seed {next(iter(self.runs))}"

    @property
    def rule(self) -> str:
        """What is compared, when it was measured, and what counts as equal."""
        if self.verdict is None:
            return ""
        question = self.verdict.question
        tolerance = f", tolerance {question.tolerance:g}" if question.tolerance else ""
        return f"{metric_name(question)}{tolerance}"

    @property
    def state(self) -> str:
        """How far the trainings are."""
        done = sum(len(run.records) for run in self.runs.values())
        planned = sum(len(run.plan) for run in self.runs.values())
        if not all(run.plan for run in self.runs.values()):  # of an older version
            return f"{done} trainings"
        if all(run.is_finished for run in self.runs.values()):
            return f"{done} trainings, finished"
        return f"{done} of {planned} trainings: still running, or interrupted"

    def settings(self) -> dict[str, str | float | int]:
        """What was configured, by name, as plain values. The network's own values begin with ``hparams/``."""
        first = next(iter(self.runs.values())).description
        limits = {name: first.trainer.get(name) for name in ("max_epochs", "max_steps")}
        own = {f"hparams/{n}": _number(v) for n, v in first.hyperparameters.items() if not n.startswith("_")}
        values = {**own, **first.arguments, **limits, "seed": ", ".join(map(str, self.runs))}
        kept = {name: value for name, value in values.items() if value not in (None, "None", [], {})}
        return {name: value if isinstance(value, (int, float)) else str(value) for name, value in kept.items()}

    def numbers(self) -> dict[str, float]:
        """The numbers of the verdict by name, as far as they are known.

        They are the metric of round 0, the density of the smallest ticket that is as good, its metric, and the
        cost in trainings of round 0.
        """
        numbers: dict[str, float | None] = {}
        if all(0 in run.records[TICKET_BRANCH] for run in self.runs.values()):
            numbers["cost"] = mean(run.records.cost().trainings for run in self.runs.values())
        if self.verdict is not None and 0 in self.verdict:
            numbers["dense"] = self.verdict[0].metric.mean
            if (smallest := self.headline.row) is not None:
                numbers["smallest_density"] = smallest.density
                numbers["ticket"] = smallest.metric.mean
        return {f"verdict/{name}": value for name, value in numbers.items() if value is not None}


def _number(text: str) -> str | float:
    """The number that a text describes, or else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def name_of(path: Path, more: int = 0) -> str:
    """What to call a run or a study by its folder, such as ``mnist`` or ``mnist/seed_0``.

    Args:
        path: The folder.
        more: How many of the folders above to name in addition.
    """
    path = path.absolute()
    if re.fullmatch(r"lottery(_\d+)?", path.name):  # in the folder of a logger
        path = path.parent
    says_little = re.fullmatch(r"(seed|version)_\d+", path.name) is not None
    return "/".join(path.parts[-1 - says_little - more :])

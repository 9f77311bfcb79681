"""How far the seeds of a study are."""

import time
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from lightning_lottery.report import line
from lightning_lottery.storage import RECORDS, Replicate
from lightning_lottery.study.job import Job

State = Literal["waiting", "running", "finished", "ended early", "failed"]


@dataclass(frozen=True)
class Progress:
    """How far one seed is.

    Attributes:
        seed: The seed.
        state: What its process does.
        run: Its run folder; ``None`` before the run has started.
        seconds_left: The expected duration of the rest, in seconds; ``None`` if it is unknown.
    """

    seed: int
    state: State
    run: Replicate | None
    seconds_left: float | None

    @classmethod
    def of(cls, job: Job, state: State, run: Replicate | None) -> "Progress":
        """The progress of a seed now.

        Args:
            job: The seed.
            state: What its process does.
            run: The present state of its run; ``None`` if no run was started.
        """
        return cls(job.seed, state, run, _seconds_left(run) if state == "running" and run is not None else None)

    @property
    def rounds(self) -> str:
        """How many rounds are finished, such as ``3 of 8``."""
        if self.run is None:
            return ""
        return f"{len(self.run.records)} of {len(self.run.plan) or '?'}"

    @property
    def density(self) -> str:
        """The density of the last finished round."""
        return f"{self.run.records[-1].density:.4f}" if self.run is not None and self.run.records else ""

    @property
    def metric(self) -> str:
        """The monitored metric at the end of the last finished round."""
        if self.run is None or not self.run.records or self.run.monitor is None:
            return ""
        value = self.run.records[-1].metrics.get(self.run.monitor)
        return "" if value is None else f"{value:.4f}"

    @property
    def time_left(self) -> str:
        """The expected duration of the rest, such as ``12 min``."""
        if self.seconds_left is None:
            return ""
        seconds = round(self.seconds_left)
        if seconds < 60:
            return f"{seconds} s"
        minutes = round(seconds / 60)
        return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

    def lines(self, start: int) -> list[str]:
        """One line for each finished round.

        Args:
            start: How many rounds to leave out.
        """
        if self.run is None:
            return []
        last_ticket = max((entry.number for entry in self.run.plan if entry.is_ticket), default=0)
        return [line(record, last_ticket, self.run.monitor) for record in list(self.run.records)[start:]]


def _seconds_left(run: Replicate) -> float | None:
    """Estimates the seconds until the run ends, from the durations of its finished rounds."""
    if not run.records or not run.plan:
        return None
    left = [_mean_seconds(run, entry.is_search) for entry in run.plan[len(run.records) :]]
    try:
        passed = time.time() - (run.path / RECORDS).stat().st_mtime
    except OSError:  # shared storage may be away for a moment
        return None
    return float(max(0.0, sum(left) - min(passed, left[0]))) if left else 0.0


def _mean_seconds(run: Replicate, is_search: bool) -> float:
    """The mean duration of the finished rounds of one kind; without any, of all finished rounds."""
    seconds = [record.seconds for record in run.records if record.id.is_search == is_search]
    return mean(seconds or [record.seconds for record in run.records])

"""Runs the seeds of a study until all have ended."""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lightning_lottery.errors import FolderError, LotteryError, TrainingError
from lightning_lottery.storage import Replicate
from lightning_lottery.study.display import Display
from lightning_lottery.study.engine import Workers
from lightning_lottery.study.job import Job
from lightning_lottery.study.progress import Progress, State

_POLL = 0.5  # seconds between two looks at the run folders
_RESTARTS = 3  # of a seed whose process was killed without finishing a round in between
_KILLS = (signal.SIGTERM, signal.SIGKILL) if hasattr(signal, "SIGKILL") else (signal.SIGTERM,)


class Running:
    """The seeds of a study that run.

    Args:
        jobs: The seeds, in the order in which they start.
        workers: What runs them.
        display: Where their progress is shown.
    """

    def __init__(self, jobs: Sequence[Job], workers: Workers, display: Display) -> None:
        self._jobs = {job.seed: job for job in jobs}
        self._workers, self._display = workers, display
        self._waiting = deque(self._jobs)
        self._progress = {job.seed: Progress.of(job, "waiting", _read(job.folder)) for job in jobs}
        self._kills: dict[int, list[int]] = {seed: [] for seed in self._jobs}  # with how many finished rounds
        self._failures: dict[int, str] = {}

    def run(self) -> None:
        """Runs all seeds. One that fails does not stop the others.

        Raises:
            TrainingError: Seeds have failed or ended early. The message says which, why, and where their logs are.
        """
        self._show()
        while self._waiting or self._running:
            if not self._running and self._is_in_doubt:
                break
            while self._waiting and len(self._running) < self._workers.places and not self._is_in_doubt:
                self._start(self._waiting.popleft())
            time.sleep(_POLL)
            for seed, code in self._workers.ended().items():
                self._end(seed, code)
            for seed in self._running:
                self._update(seed, "running")
            self._show()
        if self._failures:
            raise TrainingError(self._report())

    @property
    def finished(self) -> int:
        """How many seeds are finished."""
        return sum(1 for progress in self._progress.values() if progress.state == "finished")

    @property
    def _running(self) -> list[int]:
        return [seed for seed, progress in self._progress.items() if progress.state == "running"]

    @property
    def _is_in_doubt(self) -> bool:
        """Whether a seed has failed and none has begun to train, so that others would probably fail too."""
        return bool(self._failures) and all(progress.run is None for progress in self._progress.values())

    def _start(self, seed: int) -> None:
        self._workers.start(self._jobs[seed])
        self._update(seed, "running")

    def _show(self) -> None:
        self._display.show(list(self._progress.values()))

    def _update(self, seed: int, state: State) -> None:
        job = self._jobs[seed]
        self._progress[seed] = Progress.of(job, state, _read(job.folder))

    def _end(self, seed: int, code: int) -> None:
        """Notes how a seed has ended."""
        job, run = self._jobs[seed], _read(self._jobs[seed].folder)
        if (killer := _killer(code)) is not None and self._may_restart(seed, run):
            self._waiting.appendleft(seed)
            self._update(seed, "waiting")
            self._display.say(f"seed {seed} was killed by {killer}. It restarts and goes on where it was.")
        elif code != 0:
            why = f"killed by {killer}" if killer is not None else job.error_line() or f"exit code {code}"
            self._fail(seed, "failed", why)
        elif run is None:
            why = f"the command has ended without a run in {job.folder}. Does it use {{dirpath}}?"
            self._fail(seed, "failed", why)
        elif not run.is_finished:
            why = f"ended after {len(run.records)} of {len(run.plan)} rounds, for example because of max_time"
            self._fail(seed, "ended early", why)
        else:
            self._update(seed, "finished")

    def _may_restart(self, seed: int, run: Replicate | None) -> bool:
        """Notes that a seed was killed. Returns whether it restarts."""
        self._kills[seed].append(0 if run is None else len(run.records))
        latest = self._kills[seed][-_RESTARTS - 1 :]
        return len(latest) <= _RESTARTS or latest[-1] > latest[0]

    def _fail(self, seed: int, state: State, why: str) -> None:
        self._failures[seed] = why
        self._update(seed, state)

    def _report(self) -> str:
        """Which seeds have failed, and why."""
        lines = [f"  seed {seed}: {why} (log: {self._jobs[seed].log})" for seed, why in self._failures.items()]
        text = "\n".join([f"{len(self._failures)} of {len(self._jobs)} seeds are not finished:", *lines])
        if self._waiting:
            others = ", ".join(map(str, self._waiting))
            text += f"\nNone has begun to train, so the others were not started: {others}."
        return text + "\nTo go on, start the study again. Finished rounds are not trained again."


def _read(folder: Path) -> Replicate | None:
    try:
        return Replicate.at(folder)
    except (LotteryError, OSError):  # damaged, or shared storage is away for a moment
        return None


def _killer(code: int) -> str | None:
    """The signal that has ended a process; ``None`` if it has ended by itself."""
    number = code - 128 if code - 128 in _KILLS else -code  # as shells and this package's command say it
    if number <= 0:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Turns the signals that end a process into exceptions, so that what it has started is stopped too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # nohup ignores SIGHUP.
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def make_folder(folder: Path) -> None:
    """Creates a folder.

    Raises:
        FolderError: It cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"cannot be created: {error.strerror or error}"
        raise FolderError(f"{folder} {why}. Choose another dirpath.") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise FolderError(f"{folder} is read-only. Choose another dirpath.")

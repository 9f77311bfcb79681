"""Shows how far the seeds of a study are: a table that is updated, or plain lines."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from types import TracebackType

from typing_extensions import Self

from lightning_lottery.study.progress import Progress


class Display(ABC):
    """Shows the progress of all seeds, inside a ``with`` block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    @abstractmethod
    def show(self, seeds: Sequence[Progress]) -> None:
        """Shows the progress of all seeds."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Prints a line that stays."""


class Lines(Display):
    """One line for every finished round and every change of state."""

    def __init__(self) -> None:
        self._rounds: dict[int, int] = {}
        self._states: dict[int, str] = {}

    def show(self, seeds: Sequence[Progress]) -> None:
        for progress in seeds:
            done = 0 if progress.run is None else len(progress.run.records)
            # Rounds that were finished before the study started are not shown.
            new = progress.lines(self._rounds.get(progress.seed, done))
            self._rounds[progress.seed] = done
            for number, text in enumerate(new, start=1):
                left = f" · {progress.time_left} left" if progress.time_left and number == len(new) else ""
                self.say(f"seed {progress.seed} · {text}{left}")
            if progress.state != self._states.get(progress.seed, "waiting"):
                rounds = f" · {progress.rounds} rounds" if progress.rounds else ""
                self.say(f"seed {progress.seed} · {progress.state}{rounds}")
            self._states[progress.seed] = progress.state

    def say(self, text: str) -> None:
        print(text, flush=True)


class LiveTable(Display):
    """A table of Rich with one row per seed, updated in place."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, seeds: Sequence[Progress]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        metric = next((p.run.monitor for p in seeds if p.run is not None and p.run.monitor), "metric")
        table = Table(box=SIMPLE_HEAD)
        for name in ("seed", "state", "rounds", "density", metric, "time left"):
            table.add_column(name, justify="left" if name == "state" else "right")
        for p in seeds:
            table.add_row(str(p.seed), p.state, p.rounds, p.density, p.metric, p.time_left)
        self._live.update(table, refresh=True)

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)


def display() -> Display:
    """A table if Rich is installed and the output is a terminal; lines otherwise."""
    return LiveTable() if sys.stdout.isatty() and find_spec("rich") is not None else Lines()

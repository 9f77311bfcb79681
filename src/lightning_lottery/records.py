"""The record of every finished round, and the folder that holds a run."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import write_whole
from lightning_lottery.ticket import Ticket

TICKET_BRANCH = "ticket"


@dataclass(frozen=True)
class RoundRecord:
    """One finished training.

    Attributes:
        round: Number of prunings before it; 0 is dense.
        branch: ``"ticket"``, or the name of the control.
        density: kept / prunable, in (0, 1].
        kept: Surviving prunable weights.
        prunable: Prunable weights.
        parameters: All parameters of the network, prunable or not.
        metrics: Every scalar that the LightningModule had logged when the training ended, at its last value.
        best_value: Best value of the monitored metric in the round; ``None`` without ``monitor``.
        best_step: ``global_step`` at that value, the early-stopping iteration of the papers.
        steps: Optimizer steps of the round.
        seconds: Duration of the round, validation included.
        masks_hash: Fingerprint of the masks; equal masks have equal ones.
        ticket: Path of the ticket file, relative to the run folder.
    """

    round: int
    branch: str
    density: float
    kept: int
    prunable: int
    parameters: int
    metrics: dict[str, float] = field(default_factory=dict)
    best_value: float | None = None
    best_step: int | None = None
    steps: int = 0
    seconds: float = 0.0
    masks_hash: str = ""
    ticket: str = ""


class Records(Sequence[RoundRecord]):
    """All finished rounds in the order of training: first the tickets, so that ``records[r]`` is round r.

    ``records["shuffle_mask"]`` gives the records of one branch by round.
    """

    def __init__(self, records: Sequence[RoundRecord] = ()) -> None:
        self._records = list(records)

    @overload
    def __getitem__(self, key: int) -> RoundRecord: ...
    @overload
    def __getitem__(self, key: slice) -> list[RoundRecord]: ...
    @overload
    def __getitem__(self, key: str) -> dict[int, RoundRecord]: ...
    def __getitem__(self, key: int | slice | str) -> RoundRecord | list[RoundRecord] | dict[int, RoundRecord]:
        if isinstance(key, str):
            return {record.round: record for record in self._records if record.branch == key}
        return self._records[key]

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        return f"Records({self._records!r})"

    def branches(self) -> list[str]:
        """The branches that have a record, in the order of training."""
        return list(dict.fromkeys(record.branch for record in self._records))

    def append(self, record: RoundRecord) -> None:
        """Adds the record of the round that has just finished."""
        self._records.append(record)


class Best:
    """The best value of a metric in one round, and the step at which it was first reached.

    Args:
        mode: ``"min"`` or ``"max"``.
    """

    def __init__(self, mode: str) -> None:
        self._sign = 1 if mode == "max" else -1
        self.value: float | None = None
        self.step: int | None = None

    def observe(self, value: float, step: int) -> None:
        """Takes a value at a step into account; NaN never is the best."""
        if value == value and (self.value is None or self._sign * value > self._sign * self.value):
            self.value, self.step = value, step


def round_name(number: int, branch: str = TICKET_BRANCH) -> str:
    """The name of a round in files, folders and loggers, such as ``round_03`` or ``round_03_shuffle_mask``."""
    return f"round_{number:02d}" + ("" if branch == TICKET_BRANCH else f"_{branch}")


class RunFolder:
    """The files of one run; every one is written whole and renamed.

    Args:
        path: The folder. It is made when the first file is written.
        temporary: What removes the folder when nobody needs it any more.

    Raises:
        ConfigurationError: There is a file where the folder should be.
    """

    def __init__(self, path: Path, temporary: TemporaryDirectory[str] | None = None) -> None:
        for part in (path, *path.parents):
            if part.is_file():
                raise ConfigurationError(f"{str(path)!r} cannot be a folder, since {str(part)!r} is a file.")
        self.path = path
        self._temporary = temporary

    @classmethod
    def next_free(cls, path: Path) -> "RunFolder":
        """The folder itself, or ``<path>_1``, ``<path>_2``, … if it holds a run already."""
        folder, number = cls(path), 0
        while folder.was_begun() or folder.holds_records():
            number += 1
            folder = cls(path.with_name(f"{path.name}_{number}"))
        return folder

    @property
    def _description(self) -> Path:
        return self.path / "lottery.json"

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    def was_begun(self) -> bool:
        """Whether a run was begun here; it may be training just now."""
        return self._description.exists()

    def holds_records(self) -> bool:
        """Whether a run here has finished a round."""
        return self._rounds.exists()

    def clear(self) -> None:
        """Removes the files of an earlier run, and nothing else."""
        stale = [self._rounds, self._description, self.path / "rewind.safetensors", self.path / "report.png"]
        for path in (*stale, *(self.path / "tickets").glob("round_*.safetensors")):
            path.unlink(missing_ok=True)

    def begin(self, description: Mapping[str, Any], dense: Ticket) -> None:
        """Writes what the run is, and the weights that it returns to."""
        dense.save(self.path / "rewind.safetensors")
        write_whole(self._description, (json.dumps(description, indent=2) + "\n").encode())

    def arguments(self) -> dict[str, Any] | None:
        """The arguments of the run that was begun here; ``None`` if there is none."""
        if not self._description.exists():
            return None
        arguments: dict[str, Any] = json.loads(self._description.read_text())["arguments"]
        return arguments

    def write_records(self, records: Records) -> None:
        """Writes ``rounds.jsonl``, one line a round."""
        lines = (json.dumps(_plain(asdict(record))) + "\n" for record in records)
        write_whole(self._rounds, "".join(lines).encode())

    def read_records(self) -> Records:
        """Reads ``rounds.jsonl``; empty if no round has finished.

        Raises:
            LotteryError: A line is no record.
        """
        if not self._rounds.exists():
            return Records()
        records = []
        for number, line in enumerate(self._rounds.read_text().splitlines(), start=1):
            try:
                record = RoundRecord(**json.loads(line))
                metrics = {name: nan if value is None else value for name, value in record.metrics.items()}
                records.append(replace(record, metrics=metrics))
            except (ValueError, TypeError, AttributeError) as error:
                raise LotteryError(f"Line {number} of {self._rounds} is no record: {error}") from error
        return Records(records)

    def ticket_path(self, number: int, branch: str = TICKET_BRANCH) -> Path:
        """Where the ticket of a round is."""
        return self.path / "tickets" / f"{round_name(number, branch)}.safetensors"


class Tickets(Mapping[int, Ticket]):
    """The tickets of a run by round, read from their files at each access.

    ``tickets[3]`` is the ticket of round 3, ``tickets["shuffle_mask"][3]`` that of a control. A ticket is written
    when its round begins, so there may be one more than there are records.

    Args:
        folder: The run folder; ``None`` if no run has begun.
        branch: Whose tickets.
    """

    def __init__(self, folder: RunFolder | None, branch: str = TICKET_BRANCH) -> None:
        self._folder = folder
        self._branch = branch

    @overload
    def __getitem__(self, key: int) -> Ticket: ...
    @overload
    def __getitem__(self, key: str) -> "Tickets": ...
    def __getitem__(self, key: int | str) -> "Ticket | Tickets":
        if isinstance(key, str):
            return Tickets(self._folder, key)
        if self._folder is None or key not in list(self):
            raise KeyError(f"no ticket {key!r} of branch {self._branch!r}; there are those of rounds {list(self)}")
        return Ticket.load(self._folder.ticket_path(key, self._branch))

    def __iter__(self) -> Iterator[int]:
        if self._folder is not None:
            for path in sorted((self._folder.path / "tickets").glob("round_*.safetensors")):
                number = int(path.stem.split("_")[1])
                if path == self._folder.ticket_path(number, self._branch):
                    yield number

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Tickets(branch={self._branch!r}, rounds={list(self)})"


def smallest_matching(records: Records, mode: str, tolerance: float) -> RoundRecord:
    """The round of the smallest density whose best value matches that of the dense round.

    Args:
        records: Records with a monitored metric.
        mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are.
        tolerance: How much worse than dense still matches, in units of the metric, at least 0.

    Returns:
        The record; that of round 0 if no smaller ticket matches.

    Raises:
        ConfigurationError: Nothing was monitored, no round has finished, or the tolerance is negative.
    """
    if not (isinstance(tolerance, (int, float)) and tolerance >= 0):
        raise ConfigurationError(f"tolerance={tolerance!r} must be a number of at least 0, for example 0.005.")
    tickets = records[TICKET_BRANCH]
    if not tickets:
        raise ConfigurationError("No round has finished yet: call trainer.fit first.")
    dense = tickets[0].best_value
    if dense is None:
        raise ConfigurationError(
            "Matching compares a monitored metric, and none has a value. Write for example "
            "LotteryTicketCallback(..., monitor='val_acc', mode='max')."
        )
    sign = 1 if mode == "max" else -1
    matching = [
        record
        for record in tickets.values()
        if record.best_value is not None and sign * (record.best_value - dense) >= -tolerance
    ]
    return min(matching, key=lambda record: record.density)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become ``null``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not isfinite(value) else value

"""The run folder: the files of a run, and their names."""

import itertools
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from io import BytesIO
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from lightning_lottery.errors import ConfigurationError, FolderError, LotteryError
from lightning_lottery.files import is_url, write_atomically
from lightning_lottery.plain import first_line
from lightning_lottery.storage.checkpoints import NotedCheckpoint, has_weights_of, worth_keeping
from lightning_lottery.storage.description import RunDescription
from lightning_lottery.storage.names import (
    CHECKPOINTS,
    DESCRIPTION,
    FILES,
    LAST_TICKET,
    LOCK,
    RECORDS,
    REPORT,
    TESTS,
    TICKETS,
)
from lightning_lottery.storage.plain_values import State, from_plain, to_plain
from lightning_lottery.storage.record import record_of, record_values
from lightning_lottery.storage.records import Records
from lightning_lottery.storage.tested import RoundTest
from lightning_lottery.tickets import RoundId, StoredWeights, Ticket, read_mask

AnyState = TypeVar("AnyState", bound=State)
AnyLine = TypeVar("AnyLine")


class RunFolder:
    """Reads and writes the files of one run. Every write is atomic.

    Args:
        path: The folder. It is created when the first file is written.
        temporary: Deletes the folder after the run.
        is_writer: Whether this process writes. Of several processes that train together, only one does.

    Raises:
        ConfigurationError: There is a file in place of the folder.
    """

    def __init__(
        self, path: Path, temporary: TemporaryDirectory[str] | None = None, is_writer: bool = True
    ) -> None:
        for part in (path, *path.parents):
            if part.is_file():
                raise ConfigurationError(f"{str(path)!r} cannot be a folder, because {str(part)!r} is a file.")
        self.path = path
        self.is_writer = is_writer
        self._temporary = temporary
        self._lock: FileLock | None = None

    @classmethod
    def at(cls, path: str | os.PathLike[str] | None) -> "RunFolder | None":
        """The run folder at this path; ``None`` if no run was started there."""
        if path is None or is_url(path) or not (Path(path) / DESCRIPTION).is_file():
            return None
        return cls(Path(path))

    @classmethod
    def of_ticket(cls, path: Path) -> "RunFolder | None":
        """The run folder that contains this ticket file; ``None`` if it is elsewhere."""
        inside = path.absolute().parent
        return cls.at(inside.parent) if inside.name == TICKETS and RoundId.parse(path.stem) else None

    @classmethod
    def next_free(cls, path: Path) -> "RunFolder":
        """The folder, or ``<path>_1``, ``<path>_2``, … if it contains a run or another process trains in it.

        Args:
            path: The first folder to try.

        Returns:
            The folder, locked.
        """
        for number in itertools.count():
            folder = cls(path if number == 0 else path.with_name(f"{path.name}_{number}"))
            if not (folder.has_run() or folder.holds_records()) and folder.lock(wait=0):
                if not folder.has_run():
                    return folder
                folder.unlock()  # another process has started and finished a run in between
        raise AssertionError("unreachable: there is always a free number")

    def lock(self, wait: float) -> bool:
        """Prevents other processes, and other fits of this process, from training here until :meth:`unlock`.

        The operating system releases the lock when the process ends, even if it is killed.

        Args:
            wait: Seconds to wait for another process. Its data workers may outlive it by a few seconds.

        Returns:
            Whether this process holds the lock now; also ``True`` if the file system has no locks.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / LOCK)
            self._lock.acquire(timeout=wait)
        except Timeout:
            return False
        except NotImplementedError:  # the file system has no locks
            return True
        except OSError as error:
            raise FolderError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        return True

    def unlock(self) -> None:
        """Releases the lock. May be called twice."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def is_temporary(self) -> bool:
        """Whether the folder is deleted after the run."""
        return self._temporary is not None

    def has_run(self) -> bool:
        """Whether a run was started here; it may still be training."""
        return self.has(DESCRIPTION)

    def holds_records(self) -> bool:
        """Whether a run has finished a round here."""
        return self.has(RECORDS)

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.path / name).exists()

    def started(self) -> float:
        """When the run was started or resumed, in seconds since the epoch."""
        return (self.path / DESCRIPTION).stat().st_mtime

    def _write(self, name: str, content: bytes) -> None:
        if self.is_writer:
            write_atomically(self.path / name, content)

    def clear(self) -> None:
        """Removes the files of an earlier run, and nothing else."""
        self.remove_leftovers()
        for path in (
            *(self.path / name for name in FILES),
            *map(self.ticket_path, self.ticket_ids()),
        ):
            if self.is_writer:
                path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Removes temporary files that a killed process has left."""
        patterns = [self.path.glob(f".{name}.*") for name in FILES]
        for path in itertools.chain(*patterns, (self.path / TICKETS).glob(".round_*.safetensors.*")):
            if self.is_writer:
                path.unlink(missing_ok=True)

    def write_description(self, description: RunDescription) -> None:
        """Writes the description of the run."""
        self._write(DESCRIPTION, (json.dumps(description.to_json(), indent=2) + "\n").encode())

    def description(self) -> RunDescription | None:
        """The description of the run; ``None`` if there is none or it cannot be read."""
        try:
            return RunDescription.from_json(json.loads((self.path / DESCRIPTION).read_text()))
        except (OSError, ValueError, AttributeError):
            return None

    def write_state(self, name: str, state: State) -> None:
        """Writes a state to a file, as plain values and tensors."""
        if self.is_writer:
            buffer = BytesIO()
            torch.save(to_plain(state), buffer)
            self._write(name, buffer.getvalue())

    def read_state(self, name: str, kind: type[AnyState]) -> AnyState:
        """Reads a file written by :meth:`write_state`, to the CPU, without executing code in it.

        Args:
            name: The name of the file.
            kind: The class of the state.

        Raises:
            LotteryError: The file is missing or damaged, or contains more than plain values.
            ConfigurationError: It was written by another version of this package, with other values.
        """
        path = self.path / name
        try:
            values = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged bytes raise errors of many kinds
            raise LotteryError(
                f"{path} cannot be read, so this run cannot be resumed: {first_line(error)}"
            ) from error
        return from_plain(kind, values, str(path), "start a new run in another folder")

    def write_ticket(self, name: str, ticket: Ticket) -> None:
        """Writes a ticket to a path relative to the folder. If it is sharded, every process must call this."""
        if (whole := ticket.whole(keep=self.is_writer)) is not None:
            whole.save(self.path / name)

    def read_ticket(self, name: str) -> Ticket:
        """Reads a ticket written by :meth:`write_ticket`, to the CPU.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        try:
            return Ticket.load(self.path / name, max_bytes=inf)  # a run may go below any density
        except FileNotFoundError as error:
            raise self._missing(name) from error

    def read_weights(self, name: str) -> StoredWeights:
        """The starting values in a ticket file, which are read one by one.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        try:
            return StoredWeights(self.path / name)
        except FileNotFoundError as error:
            raise self._missing(name) from error

    def read_mask(self, entry: RoundId, name: str) -> Tensor | None:
        """The mask of one parameter in a round's ticket; ``None`` if it has none.

        Raises:
            LotteryError: The file is missing or damaged.
        """
        try:
            return read_mask(self.ticket_path(entry), name)
        except FileNotFoundError as error:
            raise self._missing(self.ticket_name(entry)) from error

    def _missing(self, name: str) -> LotteryError:
        return LotteryError(f"{self.path / name} is missing, so this run cannot continue.")

    def note_checkpoint(
        self, path: str, name: str, step: int = -1, best_step: int | None = None, is_whole: bool = True
    ) -> None:
        """Records the path of a new checkpoint.

        Args:
            path: The path, or a URL.
            name: The name of the round that it belongs to.
            step: ``global_step`` of its weights.
            best_step: The step of the best value of the monitored metric in the round so far.
            is_whole: Whether training can continue from it. Otherwise it only has the weights.
        """
        new = NotedCheckpoint.of(path, name, self.path, step, is_whole)
        others = [entry for entry in self._checkpoints() if not entry.is_same_file(new)]
        entries = worth_keeping([new, *others], best_step)
        self._write(CHECKPOINTS, json.dumps(list(map(asdict, entries))).encode())

    def _checkpoints(self) -> list[NotedCheckpoint]:
        """The checkpoints that were noted, the newest first."""
        try:
            return [
                NotedCheckpoint.from_json(entry) for entry in json.loads((self.path / CHECKPOINTS).read_text())
            ]
        except (OSError, ValueError, TypeError):
            return []

    def newest_checkpoint(self, name: str) -> str | None:
        """The newest checkpoint of a round, if it still exists."""
        noted = [entry for entry in self._checkpoints() if entry.round == name and entry.is_whole]
        return next((path for entry in noted if (path := entry.find(self.path)) is not None), None)

    def checkpoint_at(self, entry: RoundId, step: int) -> str | None:
        """The checkpoint with the last or the best weights of a finished round, if it still exists.

        Args:
            entry: The round.
            step: ``global_step`` of the weights.
        """
        description = self.description() or RunDescription()
        for noted in self._checkpoints():
            path = noted.find(self.path) if (noted.round, noted.step) == (entry.name, step) else None
            if path is not None and has_weights_of(path, description.run, entry, step):
                return path
        return None

    def write_records(self, records: Records) -> None:
        """Writes ``rounds.jsonl``, one line per round."""
        lines = (json.dumps(record_values(record)) + "\n" for record in records)
        self._write(RECORDS, "".join(lines).encode())

    def read_records(self) -> Records:
        """Reads ``rounds.jsonl``; empty if no round has finished.

        Raises:
            LotteryError: A line is not a record.
        """
        return Records(self._read_lines(RECORDS, record_of))

    def write_tests(self, tests: Iterable[RoundTest]) -> None:
        """Writes ``tests.jsonl``, one line per round."""
        self._write(TESTS, "".join(json.dumps(test.to_json()) + "\n" for test in tests).encode())

    def read_tests(self) -> dict[RoundId, RoundTest]:
        """Reads ``tests.jsonl``; empty if no round was tested.

        Raises:
            LotteryError: A line does not contain test metrics.
        """
        return {test.id: test for test in self._read_lines(TESTS, RoundTest.from_json)}

    def _read_lines(self, name: str, convert: Callable[[dict[str, Any]], AnyLine]) -> list[AnyLine]:
        path, found = self.path / name, []
        for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
            try:
                found.append(convert(json.loads(line)))
            except (ValueError, TypeError, AttributeError, KeyError) as error:
                raise LotteryError(f"Line {number} of {path} cannot be read: {error}") from error
        return found

    def has_last_ticket(self) -> bool:
        """Whether the last ticket was trained, and its trained weights are here."""
        return self.has(LAST_TICKET)

    @property
    def report(self) -> Path:
        """The path of the report, an HTML page."""
        return self.path / REPORT

    def ticket_path(self, entry: RoundId) -> Path:
        """The path of a round's ticket."""
        return self.path / self.ticket_name(entry)

    @staticmethod
    def ticket_name(entry: RoundId) -> str:
        """The path of a round's ticket, relative to the folder."""
        return f"{TICKETS}/{entry.name}.safetensors"

    def ticket_ids(self) -> list[RoundId]:
        """The rounds whose tickets are here, in the order of training."""
        found = (RoundId.parse(path.stem) for path in (self.path / TICKETS).glob("round_*.safetensors"))
        return sorted(entry for entry in found if entry is not None)

"""The run folder: the files of a run."""

import itertools
import json
import os
import pickle
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from io import BytesIO
from math import isfinite, isnan, nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, overload

import torch
from filelock import FileLock, Timeout
from fsspec.core import url_to_fs

from lightning_lottery.errors import ConfigurationError, FolderError, LotteryError
from lightning_lottery.files import is_url, write_atomically
from lightning_lottery.storage.records import TICKET_BRANCH, Records, RoundRecord, round_name
from lightning_lottery.tickets import Ticket

LAST = "last.pt"  # the last ticket after its training


class RunFolder:
    """Reads and writes the files of one run. Every write is atomic.

    Args:
        path: The folder. It is created when the first file is written.
        temporary: Removes the folder when it is no longer needed.
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
        if path is None or is_url(path) or not (Path(path) / "lottery.json").is_file():
            return None
        return cls(Path(path))

    @classmethod
    def next_free(cls, path: Path, lock: bool = False) -> "RunFolder":
        """The folder, or ``<path>_1``, ``<path>_2``, … if it already contains a run.

        Args:
            path: The first folder to try.
            lock: Whether to lock the folder; then a folder locked by another process does not count as free.
        """
        for number in itertools.count():
            folder = cls(path if number == 0 else path.with_name(f"{path.name}_{number}"))
            is_free = not (folder.has_run() or folder.holds_records())
            if is_free and (not lock or folder.lock(wait=0)):
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
            self._lock = FileLock(self.path / "lottery.lock")
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
    def _description(self) -> Path:
        return self.path / "lottery.json"

    @property
    def _rounds(self) -> Path:
        return self.path / "rounds.jsonl"

    def has_run(self) -> bool:
        """Whether a run was started here; it may still be training."""
        return self._description.exists()

    def holds_records(self) -> bool:
        """Whether a run has finished a round here."""
        return self._rounds.exists()

    def _write(self, name: str, content: bytes) -> None:
        if self.is_writer:
            write_atomically(self.path / name, content)

    def clear(self) -> None:
        """Removes the files of an earlier run, and nothing else."""
        self.remove_leftovers()
        names = (
            "lottery.json",
            "rounds.jsonl",
            "rewind.safetensors",
            "rewind.pt",
            "last.pt",
            "newest.json",
            "report.png",
        )
        for path in (*(self.path / name for name in names), *(self.path / "tickets").glob("round_*.safetensors")):
            if self.is_writer:
                path.unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Removes temporary files that a killed process has left."""
        for folder in (self.path, self.path / "tickets") if self.is_writer else ():
            for pattern in (".*.safetensors.*", ".*.json.*", ".*.jsonl.*", ".*.pt.*"):
                for path in folder.glob(pattern):
                    path.unlink(missing_ok=True)

    def write_description(self, description: Mapping[str, Any]) -> None:
        """Writes the description of the run, with a new id that its checkpoints refer to."""
        content = {"run": uuid.uuid4().hex, **description}
        self._write("lottery.json", (json.dumps(content, indent=2) + "\n").encode())

    def update_description(self, **changes: Any) -> None:
        """Updates the description of the run."""
        content = {**self.description(), **changes}
        self._write("lottery.json", (json.dumps(content, indent=2) + "\n").encode())

    def description(self) -> dict[str, Any]:
        """The description of the run; empty if there is none or it cannot be read."""
        try:
            description: dict[str, Any] = json.loads(self._description.read_text())
        except (OSError, ValueError):
            return {}
        return description

    def write_state(self, name: str, state: Mapping[str, Any]) -> None:
        """Writes plain values and tensors to a file."""
        if self.is_writer:
            buffer = BytesIO()
            torch.save(state, buffer)
            self._write(name, buffer.getvalue())

    def read_state(self, name: str) -> dict[str, Any]:
        """Reads a file written by :meth:`write_state`, to the CPU, without executing code in it.

        Raises:
            LotteryError: The file is missing or damaged, or contains more than plain values.
        """
        path = self.path / name
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise LotteryError(f"{path} cannot be read, so this run cannot be resumed: {why}") from error
        return state

    def has_state(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.path / name).exists()

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
            return Ticket.load(self.path / name)
        except FileNotFoundError as error:
            raise LotteryError(f"{self.path / name} is missing, so this run cannot be resumed.") from error

    def note_checkpoint(self, path: str, name: str) -> None:
        """Records the path of the newest checkpoint, and the round that it belongs to."""
        if "://" in path:  # a URL
            newest = {"path": path, "round": name}
        else:
            absolute = Path(path).absolute()
            newest = {
                "path": str(absolute),
                "from_here": os.path.relpath(absolute, self.path.absolute()),
                "round": name,
            }
        # Keep the previous one too: a checkpoint that another thread writes may be incomplete if the process ends.
        content = [newest, *(entry for entry in self._newest() if entry.get("path") != newest["path"])]
        self._write("newest.json", json.dumps(content[:2]).encode())

    def _newest(self) -> list[dict[str, str]]:
        try:
            entries: list[dict[str, str]] = json.loads((self.path / "newest.json").read_text())
        except (OSError, ValueError):
            return []
        return entries

    def newest_checkpoint(self, name: str) -> str | None:
        """The newest checkpoint of a round, if it still exists."""
        for newest in self._newest():
            # Relative to the folder first: both may have been copied or moved.
            here = os.path.normpath(self.path / newest.get("from_here", ""))
            paths = (here, newest["path"]) if newest["round"] == name else ()
            if (found := next((path for path in paths if _is_file(path)), None)) is not None:
                return found
        return None

    def write_records(self, records: Records) -> None:
        """Writes ``rounds.jsonl``, one line per round."""
        lines = (json.dumps(_plain(asdict(record))) + "\n" for record in records)
        self._write("rounds.jsonl", "".join(lines).encode())

    def read_records(self) -> Records:
        """Reads ``rounds.jsonl``; empty if no round has finished.

        Raises:
            LotteryError: A line is not a record.
        """
        if not self._rounds.exists():
            return Records()
        records = []
        for number, line in enumerate(self._rounds.read_text().splitlines(), start=1):
            try:
                records.append(_record(json.loads(line)))
            except (ValueError, TypeError, AttributeError) as error:
                raise LotteryError(f"Line {number} of {self._rounds} is not a record: {error}") from error
        return Records(records)

    def ticket_path(self, number: int, branch: str = TICKET_BRANCH) -> Path:
        """The path of a round's ticket."""
        return self.path / self.ticket_name(number, branch)

    @staticmethod
    def ticket_name(number: int, branch: str = TICKET_BRANCH) -> str:
        """The path of a round's ticket, relative to the folder."""
        return f"tickets/{round_name(number, branch)}.safetensors"


class Tickets(Mapping[int, Ticket]):
    """The tickets of a run by round. Every access reads the file.

    ``tickets[3]`` is the ticket of round 3, ``tickets["shuffle_mask"][3]`` that of a control. A ticket is written
    when its round starts, so there may be one more ticket than records.

    Args:
        folder: The run folder; ``None`` if no run has started.
        branch: The branch of the tickets.
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
            branches = self._branches()
            if key not in branches and key != TICKET_BRANCH:
                raise KeyError(f"no tickets of branch {key!r}; the branches are {branches}")
            return Tickets(self._folder, key)
        if self._folder is None or key not in self:
            raise KeyError(f"no ticket {key!r} of branch {self._branch!r}; the rounds are {list(self)}")
        return Ticket.load(self._folder.ticket_path(key, self._branch))

    def _found(self) -> list[tuple[int, str]]:
        """Round and branch of every ticket, in the order of rounds."""
        paths = [] if self._folder is None else (self._folder.path / "tickets").glob("round_*.safetensors")
        names = (path.stem.removeprefix("round_").partition("_") for path in paths)
        return sorted((int(number), branch or TICKET_BRANCH) for number, _, branch in names if number.isdigit())

    def _branches(self) -> list[str]:
        return list(dict.fromkeys(branch for _, branch in self._found()))

    def __iter__(self) -> Iterator[int]:
        return iter([number for number, branch in self._found() if branch == self._branch])

    def __contains__(self, key: object) -> bool:
        return key in self._branches() if isinstance(key, str) else isinstance(key, int) and key in list(self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Tickets(branch={self._branch!r}, rounds={list(self)})"


def _is_file(path: str) -> bool:
    files, inside = url_to_fs(path)
    return bool(files.isfile(inside))


def _record(values: dict[str, Any]) -> RoundRecord:
    """Makes the record of a line in ``rounds.jsonl``."""
    if "ticket" in values:  # its name in run folders of earlier versions
        values["ticket_path"] = values.pop("ticket")
    record = RoundRecord(**values)
    metrics = {name: nan if value is None else float(value) for name, value in record.metrics.items()}
    best = None if record.best_value is None else float(record.best_value)
    return replace(record, metrics=metrics, best_value=best)


def _plain(value: Any) -> Any:
    """Converts NaN and infinity, which JSON does not have, to ``null``, ``"inf"`` and ``"-inf"``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not isfinite(value):
        return None if isnan(value) else str(value)
    return value

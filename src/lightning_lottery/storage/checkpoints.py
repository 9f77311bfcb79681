"""The checkpoints that a run has written, as they are noted in its folder."""

import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fsspec.core import url_to_fs

from lightning_lottery.tickets import RoundId

_MOST = 6  # remembered for one round


@dataclass(frozen=True)
class NotedCheckpoint:
    """A checkpoint of a round. The file may have been removed or overwritten since.

    Attributes:
        path: The absolute path, or a URL.
        round: The name of the round.
        from_here: The path relative to the run folder; empty for a URL.
        step: ``global_step`` of the weights; -1 in run folders of older versions.
        is_whole: Whether training can continue from it. Otherwise it only has the weights.
    """

    path: str
    round: str
    from_here: str = ""
    step: int = -1
    is_whole: bool = True

    @classmethod
    def of(cls, path: str, name: str, folder: Path, step: int, is_whole: bool) -> "NotedCheckpoint":
        """Notes a new checkpoint.

        Args:
            path: The path, or a URL.
            name: The name of the round.
            folder: The run folder.
            step: ``global_step`` of the weights.
            is_whole: Whether training can continue from it.
        """
        if "://" in path:  # a URL
            return cls(path, name, step=step, is_whole=is_whole)
        absolute = Path(path).absolute()
        return cls(str(absolute), name, os.path.relpath(absolute, folder.absolute()), step, is_whole)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NotedCheckpoint":
        """An entry of ``newest.json``."""
        return cls(**values)

    def is_same_file(self, other: "NotedCheckpoint") -> bool:
        """Whether both are the same file, also if the folder was moved in between."""
        return self.path == other.path or (self.from_here != "" and self.from_here == other.from_here)

    def find(self, folder: Path) -> str | None:
        """The path of the file, if it still exists.

        Args:
            folder: The run folder.
        """
        # Relative to the folder first: both may have been copied or moved.
        here = os.path.normpath(folder / self.from_here)
        return next((path for path in (here, self.path) if _is_file(path)), None)


def worth_keeping(checkpoints: Sequence[NotedCheckpoint], best_step: int | None) -> list[NotedCheckpoint]:
    """The checkpoints that are still needed: to resume, and to test the last and the best weights of each round.

    To resume, the two newest of all are needed: one that another thread writes may be incomplete if the process
    ends. Several files may have the same weights, and one of them may be overwritten, such as ``last.ckpt``.

    Args:
        checkpoints: All that are known, the newest first.
        best_step: The step of the best value in the round of the newest one so far, if any.
    """
    newest = checkpoints[0]
    kept: list[NotedCheckpoint] = []
    for entry in checkpoints:
        is_needed = entry.round != newest.round or entry.step in (newest.step, best_step)
        same = sum(other.round == entry.round for other in kept)
        whole = sum(other.is_whole for other in kept)
        if (entry.is_whole and whole < 2) or (is_needed and same < _MOST):
            kept.append(entry)
    return kept


def has_weights_of(path: str, run: str, entry: RoundId, step: int) -> bool:
    """Whether a file still is the checkpoint that was noted, and was not overwritten by another training.

    Args:
        path: The path, or a URL.
        run: The id of the run.
        entry: The round.
        step: ``global_step`` of the weights.
    """
    try:
        checkpoint = _loaded(path)
    except pickle.UnpicklingError:  # other callbacks may store any object; the Trainer may still load it
        return True
    except (RuntimeError, EOFError, OSError, ValueError):  # incomplete, or not a checkpoint
        return False
    if checkpoint.get("global_step") != step:
        return False
    states = [state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, dict)]
    ours = [
        (state["run"], state["round"], state["branch"]) for state in states if {"run", "branch"} <= state.keys()
    ]
    return all(state == (run, entry.number, entry.branch) for state in ours)


def _loaded(path: str) -> dict[str, Any]:
    if "://" not in path:
        local: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return local
    files, inside = url_to_fs(path)
    with files.open(inside, "rb") as file:
        remote: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return remote


def _is_file(path: str) -> bool:
    files, inside = url_to_fs(path)
    return bool(files.isfile(inside))

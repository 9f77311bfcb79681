"""The checkpoints that a run has written, as they are noted in its folder."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsspec.core import url_to_fs

_MOST = 6  # remembered for one round


@dataclass(frozen=True)
class NotedCheckpoint:
    """A checkpoint of a round. The file may have been removed since.

    Attributes:
        path: The absolute path, or a URL.
        round: The name of the round.
        from_here: The path relative to the run folder; empty for a URL.
        step: ``global_step`` of the weights; -1 in run folders of older versions.
        is_best: Whether the monitored metric was the best of the round so far.
    """

    path: str
    round: str
    from_here: str = ""
    step: int = -1
    is_best: bool = False

    @classmethod
    def of(cls, path: str, name: str, folder: Path, step: int, is_best: bool) -> "NotedCheckpoint":
        """Notes a new checkpoint.

        Args:
            path: The path, or a URL.
            name: The name of the round.
            folder: The run folder.
            step: ``global_step`` of the weights.
            is_best: Whether the monitored metric is the best of the round so far.
        """
        if "://" in path:  # a URL
            return cls(path, name, step=step, is_best=is_best)
        absolute = Path(path).absolute()
        return cls(str(absolute), name, os.path.relpath(absolute, folder.absolute()), step, is_best)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "NotedCheckpoint":
        """A line in ``newest.json``."""
        return cls(**values)

    def find(self, folder: Path) -> str | None:
        """The path of the file, if it still exists.

        Args:
            folder: The run folder.
        """
        # Relative to the folder first: both may have been copied or moved.
        here = os.path.normpath(folder / self.from_here)
        return next((path for path in (here, self.path) if _is_file(path)), None)


def worth_keeping(checkpoints: Sequence[NotedCheckpoint]) -> list[NotedCheckpoint]:
    """The checkpoints of the newest and of the best weights of each round, and the two newest of all.

    A checkpoint that another thread writes may be incomplete if the process ends, so resuming needs two. Several
    files may have the same weights, and one of them may be overwritten, such as ``last.ckpt``.

    Args:
        checkpoints: All that are known, the newest first.
    """
    kept: list[NotedCheckpoint] = []
    newest: dict[str, int] = {}  # steps by round
    best: dict[str, int] = {}
    for entry in checkpoints:
        newest.setdefault(entry.round, entry.step)
        if entry.is_best:
            best.setdefault(entry.round, entry.step)
        is_newest = entry.step == newest[entry.round]
        is_best = entry.is_best and entry.step == best[entry.round]
        same = sum(other.round == entry.round for other in kept)
        if len(kept) < 2 or ((is_newest or is_best) and same < _MOST):
            kept.append(entry)
    return kept


def _is_file(path: str) -> bool:
    files, inside = url_to_fs(path)
    return bool(files.isfile(inside))

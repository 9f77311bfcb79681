"""The checkpoint callbacks of a fit: every round has a folder of its own, and a memory of its own."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from lightning_lottery._lightning.callback_state import CHECKPOINT_ATTRIBUTES, attributes
from lightning_lottery.attributes import replace_attribute


class RoundCheckpoints:
    """Sends the checkpoints of each round to a folder of its own, inside that of the fit.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._own: dict[ModelCheckpoint, tuple[Any, str | None]] = {}  # the folders and file names of the fit

    def _all(self) -> list[ModelCheckpoint]:
        callbacks: list[Callback] = self._trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]

    def enter(self, name: str) -> None:
        """Gives a round a folder of its own; call it after ``setup`` of the callbacks, which find theirs there.

        Args:
            name: The name of the round.
        """
        for checkpoint in self._all():
            folder, file = self._own.setdefault(checkpoint, (checkpoint.dirpath, checkpoint.filename))
            checkpoint.dirpath = os.path.join(folder or "", name)  # noqa: PTH118 (it may be an address)
            # MLflow tells artifacts apart by the names of files alone.
            if any(isinstance(logger, MLFlowLogger) for logger in self._trainer.loggers):
                checkpoint.filename = f"{name}-{file or '{epoch}-{step}'}"

    def leave(self) -> None:
        """Gives the callbacks back the folders and file names that they had. May be called twice."""
        for checkpoint, (folder, file) in self._own.items():
            checkpoint.filename = file
            if not (checkpoint.save_last and "://" in str(folder)):  # where ckpt_path="last" finds no link
                checkpoint.dirpath = folder
        self._own.clear()

    def leave_after_exception(self) -> None:
        """Does the same when all callbacks have heard of an exception: some write a checkpoint then."""
        strategy = self._trainer.strategy
        on_exception = strategy.on_exception  # which Lightning calls after that of callbacks and data

        def leave(exception: BaseException) -> None:
            undo()
            self.leave()
            on_exception(exception)

        undo = replace_attribute(strategy, "on_exception", leave)

    def note_saved(self, path: str) -> None:
        """Shows ``ckpt_path="last"`` the way to a new checkpoint: it searches the folder of the fit alone."""
        for checkpoint in self._all():
            if checkpoint.save_last and os.path.dirname(path) == checkpoint.dirpath:  # noqa: PTH120 (an address)
                _link_last(checkpoint, Path(self._own[checkpoint][0] or ""), path)

    def restore_last(self) -> None:
        """Shows ``ckpt_path="last"`` the way to the last checkpoint that the callbacks remember."""
        for checkpoint, (folder, _) in self._own.items():
            if checkpoint.save_last and Path(checkpoint.last_model_path).is_file():
                _link_last(checkpoint, Path(folder or ""), checkpoint.last_model_path)

    def memories(self) -> list[tuple[str, dict[str, Any]]]:
        """All that the callbacks remember of the round that they are in, by their keys in a checkpoint."""
        return [
            (checkpoint.state_key, attributes(checkpoint, CHECKPOINT_ATTRIBUTES)) for checkpoint in self._all()
        ]

    def restore(self, memories: list[tuple[str, dict[str, Any]]]) -> None:
        """Puts back what :meth:`memories` gave."""
        left = list(memories)
        for checkpoint in self._all():
            memory = take(left, checkpoint.state_key) or {}
            vars(checkpoint).update({name: value for name, value in memory.items() if name in vars(checkpoint)})


def _link_last(checkpoint: ModelCheckpoint, folder: Path, path: str) -> None:
    link = folder / f"{checkpoint.CHECKPOINT_NAME_LAST}{checkpoint.FILE_EXTENSION}"
    with suppress(OSError):  # not on this file system
        temporary = folder / f".{link.name}.{os.getpid()}"
        temporary.symlink_to(os.path.relpath(path, folder))
        temporary.replace(link)


def take(states: list[tuple[str, Any]], name: str) -> Any:
    """Takes the first state of this name out of a list; ``None`` if there is none."""
    for index, (other, _) in enumerate(states):
        if other == name:
            return states.pop(index)[1]
    return None

"""Checkpoint callbacks: every round has its own folder and its own best checkpoints."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import MLFlowLogger

from lightning_lottery._lightning.other_callbacks import CHECKPOINT_ATTRIBUTES, attributes, take
from lightning_lottery.attributes import replace_attribute
from lightning_lottery.storage import NamedState


class RoundCheckpoints:
    """Writes the checkpoints of each round to its own folder inside the folder of the fit.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._own: dict[ModelCheckpoint, tuple[Any, str | None]] = {}  # folders and file names before the fit

    def _all(self) -> list[ModelCheckpoint]:
        callbacks: list[Callback] = self._trainer.callbacks  # type: ignore[attr-defined]
        return [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]

    def enter(self, name: str) -> None:
        """Switches to the folder of a round. Call it after ``setup`` of the callbacks, which sets their folders.

        Args:
            name: The name of the round.
        """
        for checkpoint in self._all():
            folder, file = self._own.setdefault(checkpoint, (checkpoint.dirpath, checkpoint.filename))
            checkpoint.dirpath = os.path.join(folder or "", name)  # noqa: PTH118 (it may be a URL)
            # MLflow identifies artifacts by their file names alone.
            if any(isinstance(logger, MLFlowLogger) for logger in self._trainer.loggers):
                checkpoint.filename = f"{name}-{file or '{epoch}-{step}'}"

    def leave(self) -> None:
        """Restores folders and file names. May be called twice."""
        for checkpoint, (folder, file) in self._own.items():
            checkpoint.filename = file
            if not (checkpoint.save_last and "://" in str(folder)):  # no links there: "last" needs this folder
                checkpoint.dirpath = folder
        self._own.clear()

    def leave_after_exception(self) -> None:
        """Calls :meth:`leave` after ``on_exception`` of all callbacks, since some write a checkpoint there."""
        strategy = self._trainer.strategy
        on_exception = strategy.on_exception  # Lightning calls it after those of callbacks and data

        def leave(exception: BaseException) -> None:
            undo()
            self.leave()
            on_exception(exception)

        undo = replace_attribute(strategy, "on_exception", leave)

    def note_saved(self, path: str) -> None:
        """Links ``last.ckpt`` to a new checkpoint: ``ckpt_path="last"`` only searches the folder of the fit."""
        for checkpoint in self._all():
            if checkpoint.save_last and os.path.dirname(path) == checkpoint.dirpath:  # noqa: PTH120 (a URL)
                _link_last(checkpoint, Path(self._own[checkpoint][0] or ""), path)

    def restore_last(self) -> None:
        """Links ``last.ckpt`` to the last checkpoint of the restored states."""
        for checkpoint, (folder, _) in self._own.items():
            if checkpoint.save_last and Path(checkpoint.last_model_path).is_file():
                _link_last(checkpoint, Path(folder or ""), checkpoint.last_model_path)

    def states(self) -> list[NamedState]:
        """The states of the callbacks in the current round, by their keys in a checkpoint."""
        return [NamedState(each.state_key, attributes(each, CHECKPOINT_ATTRIBUTES)) for each in self._all()]

    def restore(self, states: list[NamedState]) -> None:
        """Restores the result of :meth:`states`."""
        left = list(states)
        for checkpoint in self._all():
            state = take(left, checkpoint.state_key) or {}
            vars(checkpoint).update({name: value for name, value in state.items() if name in vars(checkpoint)})


def _link_last(checkpoint: ModelCheckpoint, folder: Path, path: str) -> None:
    link = folder / f"{checkpoint.CHECKPOINT_NAME_LAST}{checkpoint.FILE_EXTENSION}"
    with suppress(OSError):  # not supported by this file system
        temporary = folder / f".{link.name}.{os.getpid()}"
        temporary.symlink_to(os.path.relpath(path, folder))
        temporary.replace(link)

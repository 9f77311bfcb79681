"""What other callbacks, and the data module, remember of a training, and have to forget before the next."""

import copy
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Callback, LightningDataModule, Trainer, callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch import nn

from lightning_lottery.module_state import ModuleState, is_metric

# ModelCheckpoint's load_state_dict leaves most of it alone, and warns about another folder.
_CHECKPOINT_MEMORY = (
    "best_k_models",
    "best_model_path",
    "best_model_score",
    "current_score",
    "kth_best_model_path",
    "kth_value",
    "last_model_path",
    "_last_checkpoint_saved",
    "_last_global_step_saved",
    "_defer_save_until_validation",  # since 2.6
)
# Where metrics that a callback holds lie beside what its state_dict gives.
_METRICS = "lottery/metrics"
# What averaging callbacks remember besides the averaged network, which their setup() makes anew.
_AVERAGING_MEMORY = (
    "momenta",
    "n_averaged",
    "_init_n_averaged",
    "_initialized",
    "_latest_update_epoch",
    "_latest_update_step",
    "_scheduler_state",
    "_swa_scheduler",
)
_AVERAGING = tuple(
    getattr(callbacks, name)
    for name in ("StochasticWeightAveraging", "WeightAveraging")  # the latter since 2.5.3
    if hasattr(callbacks, name)
)
# The folders that the rounds' checkpoints lie in, by callback: one callback may serve several fits.
_CHECKPOINT_FOLDERS: WeakKeyDictionary[ModelCheckpoint, Any] = WeakKeyDictionary()
_CHECKPOINT_NAMES: WeakKeyDictionary[ModelCheckpoint, str | None] = WeakKeyDictionary()


class Memory:
    """The memory of one callback or data module, as it was before the first round.

    Attributes:
        state: It, as plain values.

    Args:
        callback: Any callback or data module. Besides those callbacks of Lightning that need special care, it
            returns to the state that its ``state_dict`` gave, if that was not empty.
        state: The memory that another process noted; the present one if left out.
    """

    def __init__(self, callback: Callback | LightningDataModule, state: dict[str, Any] | None = None) -> None:
        self.callback = callback
        self._is_special = isinstance(callback, (ModelCheckpoint, Timer, *_AVERAGING))
        self.state = self._present() if state is None else state

    @property
    def is_average(self) -> bool:
        """Whether the callback averages weights."""
        return isinstance(self.callback, _AVERAGING)

    @property
    def name(self) -> str:
        """What finds the same callback in another process."""
        return self.callback.state_key if isinstance(self.callback, Callback) else type(self.callback).__qualname__

    def at_point(self) -> dict[str, Any] | None:
        """The present state, if a round that begins at a later point is to begin with it; else ``None``.

        Checkpoints, clocks and averages begin anew in every round.
        """
        return None if self._is_special else self._plain()

    def _plain(self) -> dict[str, Any]:
        """What the callback's ``state_dict`` gives, and the metrics among its attributes."""
        metrics = {name: vars(ModuleState.of(value)) for name, value in self._metrics().items()}
        return copy.deepcopy(self.callback.state_dict()) | ({_METRICS: metrics} if metrics else {})

    def _metrics(self) -> dict[str, nn.Module]:
        return {name: value for name, value in vars(self.callback).items() if is_metric(value)}

    def _present(self) -> dict[str, Any]:
        if isinstance(self.callback, ModelCheckpoint):
            return checkpoint_memory(self.callback)
        if isinstance(self.callback, _AVERAGING):
            return _attributes(self.callback, _AVERAGING_MEMORY)
        return self._plain()

    def restore(self, trainer: Trainer, point: dict[str, Any] | None = None) -> None:
        """Makes the callback forget; call it with the weights of the next round in place.

        Args:
            trainer: The Trainer.
            point: What :meth:`at_point` gave, if the round begins at a later point.
        """
        callback = self.callback
        if isinstance(callback, Timer):
            # Time goes on: what has passed becomes the offset, and no end is left that would stop the clock.
            callback.load_state_dict(callback.state_dict())
            # It has no reset; on_train_start sets the start, and the end again.
            callback._start_time = dict.fromkeys(callback._start_time)
            callback._end_time = dict.fromkeys(callback._end_time)
        elif isinstance(callback, (ModelCheckpoint, *_AVERAGING)):
            vars(callback).update({name: copy.copy(value) for name, value in self.state.items()})
            if isinstance(callback, Callback) and not isinstance(callback, ModelCheckpoint):
                callback.setup(trainer, trainer.lightning_module, "fit")  # a new average, of the new weights
        else:
            self._restore_plain(dict(point or self.state))

    def _restore_plain(self, state: dict[str, Any]) -> None:
        metrics, present = state.pop(_METRICS, {}), self._metrics()
        for name in metrics.keys() & present.keys():
            ModuleState(**metrics[name]).restore(present[name])
        if state:
            self.callback.load_state_dict(copy.deepcopy(state))
        elif self.callback.state_dict():
            warnings.warn(
                f"{self.name} had no state before the first round and has one now: it is not rewound. Let its "
                "state_dict give the initial state from the beginning.",
                stacklevel=2,
            )


def checkpoint_memory(checkpoint: ModelCheckpoint) -> dict[str, Any]:
    """All that a checkpoint callback remembers of the round that it is in."""
    return _attributes(checkpoint, _CHECKPOINT_MEMORY)


def _attributes(callback: Any, names: tuple[str, ...]) -> dict[str, Any]:
    present = vars(callback)
    return {name: copy.copy(present[name]) for name in names if name in present}


def enter_folder(checkpoint: ModelCheckpoint, name: str) -> None:
    """Gives a round a folder of its own for checkpoints, inside that of the fit.

    The callback keeps it after the fit, where ``ckpt_path="last"`` searches.
    """
    folder = _CHECKPOINT_FOLDERS.setdefault(checkpoint, checkpoint.dirpath)
    checkpoint.dirpath = os.path.join(folder or "", name)  # noqa: PTH118 (it may be an address)


def name_files(checkpoint: ModelCheckpoint, name: str) -> None:
    """Puts the round into the names of checkpoint files, for loggers that take them out of their folders."""
    own = _CHECKPOINT_NAMES.setdefault(checkpoint, checkpoint.filename)
    checkpoint.filename = f"{name}-{own or '{epoch}-{step}'}"


def link_last(checkpoint: ModelCheckpoint, path: str) -> None:
    """Shows ``ckpt_path="last"`` of another process the way: it searches the folder of the fit, not of a round.

    Args:
        checkpoint: A checkpoint callback that keeps the last one.
        path: The newest file, in the folder of its round.
    """
    folder = Path(_CHECKPOINT_FOLDERS[checkpoint] or "")
    link = folder / f"{checkpoint.CHECKPOINT_NAME_LAST}{checkpoint.FILE_EXTENSION}"
    with suppress(OSError):  # not on this file system
        temporary = folder / f".{link.name}.{os.getpid()}"
        temporary.symlink_to(os.path.relpath(path, folder))
        temporary.replace(link)

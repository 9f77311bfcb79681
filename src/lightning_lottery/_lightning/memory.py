"""What other callbacks, and the data module, remember of a training, and have to forget before the next."""

import copy
import os
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import Callback, LightningDataModule, Trainer, callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, Timer

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


class Memory:
    """The memory of one callback or data module, as it was before the first round.

    Args:
        callback: Any callback or data module. Besides those callbacks of Lightning that need special care, it
            returns to the state that its ``state_dict`` gave, if that was not empty.
    """

    def __init__(self, callback: Callback | LightningDataModule) -> None:
        self.callback = callback
        is_special = isinstance(callback, (ModelCheckpoint, *_AVERAGING))
        self._state = self._attributes() if is_special else copy.deepcopy(callback.state_dict())

    def _attributes(self) -> dict[str, Any]:
        names = _CHECKPOINT_MEMORY if isinstance(self.callback, ModelCheckpoint) else _AVERAGING_MEMORY
        present = vars(self.callback)
        return {name: copy.copy(present[name]) for name in names if name in present}

    def restore(self, trainer: Trainer) -> None:
        """Makes the callback forget; call it with the weights of the next round in place."""
        callback = self.callback
        if isinstance(callback, Timer):
            # Time goes on: what has passed becomes the offset, and no end is left that would stop the clock.
            callback.load_state_dict(callback.state_dict())
            callback._start_time = dict.fromkeys(callback._start_time)
            callback._end_time = dict.fromkeys(callback._end_time)
        elif isinstance(callback, (ModelCheckpoint, *_AVERAGING)):
            vars(callback).update({name: copy.copy(value) for name, value in self._state.items()})
            if isinstance(callback, Callback) and not isinstance(callback, ModelCheckpoint):
                callback.setup(trainer, trainer.lightning_module, "fit")  # a new average, of the new weights
        elif self._state:
            callback.load_state_dict(copy.deepcopy(self._state))


def enter_folder(checkpoint: ModelCheckpoint, name: str) -> None:
    """Gives a round a folder of its own for checkpoints, inside that of the fit.

    The callback keeps it after the fit, where ``ckpt_path="last"`` searches.
    """
    folder = _CHECKPOINT_FOLDERS.setdefault(checkpoint, checkpoint.dirpath)
    checkpoint.dirpath = os.path.join(folder or "", name)  # noqa: PTH118 (it may be an address)

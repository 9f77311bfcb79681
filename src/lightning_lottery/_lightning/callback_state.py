"""What other callbacks, and the data module, remember of a training, and have to forget before the next."""

import copy
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, Trainer, callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from torch import nn

from lightning_lottery.notices import warn
from lightning_lottery.tickets import ModuleState, is_metric

# ModelCheckpoint's load_state_dict leaves most of it alone, and warns about another folder.
CHECKPOINT_ATTRIBUTES = (
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
_AVERAGING_ATTRIBUTES = (
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


class CallbackState:
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
            return attributes(self.callback, CHECKPOINT_ATTRIBUTES)
        if isinstance(self.callback, _AVERAGING):
            return attributes(self.callback, _AVERAGING_ATTRIBUTES)
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
            warn(
                f"{self.name} had no state before the first round and has one now: it is not rewound. Let its "
                "state_dict give the initial state from the beginning.",
            )


def attributes(callback: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Copies of attributes of a callback, of those that it has."""
    present = vars(callback)
    return {name: copy.copy(present[name]) for name in names if name in present}

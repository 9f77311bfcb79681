"""The other callbacks: their state, which is restored before every round, and what they may do to gradients."""

import copy
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn

from lightning_lottery.storage import NamedState, StateDict, to_plain
from lightning_lottery.tickets import ModuleState, is_metric, moved_like

# ModelCheckpoint's load_state_dict ignores most of these attributes, and warns about another folder.
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
# The key of a callback's metrics beside the content of its state_dict.
_METRICS = "lottery/metrics"
# The attributes of averaging callbacks besides the averaged network, which their setup() creates again.
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
    """The state of one callback or data module before the first round.

    Attributes:
        state: The state, as plain values.

    Args:
        callback: Any callback or data module. Its state is what its ``state_dict`` returns, if that is not empty.
            Some callbacks of Lightning are handled specially.
        state: The state that another process has saved; by default the current one.
    """

    def __init__(self, callback: Callback | LightningDataModule, state: StateDict | None = None) -> None:
        self.callback = callback
        self._is_special = isinstance(callback, (ModelCheckpoint, Timer, *_AVERAGING))
        self.state = self._present() if state is None else state

    @property
    def is_average(self) -> bool:
        """Whether the callback averages weights."""
        return isinstance(self.callback, _AVERAGING)

    @property
    def name(self) -> str:
        """A name that identifies the callback in another process."""
        return self.callback.state_key if isinstance(self.callback, Callback) else type(self.callback).__qualname__

    def at_start(self) -> NamedState:
        """The state before the first round."""
        return NamedState(self.name, self.state)

    def at_point(self) -> NamedState:
        """The current state, for rounds that start at this point.

        It has no content for checkpoint callbacks, timers and averages of weights, which ignore the point.
        """
        return NamedState(self.name, None if self._is_special else self._plain())

    def _plain(self) -> StateDict:
        """The callback's ``state_dict``, and the states of metrics among its attributes."""
        metrics = {name: to_plain(ModuleState.of(value)) for name, value in self._metrics().items()}
        return copy.deepcopy(self.callback.state_dict()) | ({_METRICS: metrics} if metrics else {})

    def _metrics(self) -> dict[str, nn.Module]:
        return {name: value for name, value in vars(self.callback).items() if is_metric(value)}

    def _present(self) -> StateDict:
        if isinstance(self.callback, ModelCheckpoint):
            return attributes(self.callback, CHECKPOINT_ATTRIBUTES)
        if isinstance(self.callback, _AVERAGING):
            return attributes(self.callback, _AVERAGING_ATTRIBUTES)
        return self._plain()

    def restore(self, trainer: Trainer, point: StateDict | None = None) -> None:
        """Restores the state. The weights of the next round must be in place.

        Args:
            trainer: The Trainer.
            point: The state in the result of :meth:`at_point`, if the round starts at a later point.
        """
        callback = self.callback
        if isinstance(callback, Timer):
            # The timer keeps running: the elapsed time becomes its offset. A remaining end time would stop it.
            callback.load_state_dict(callback.state_dict())
            # Timer has no method to reset it. on_train_start sets the start time again, on_train_end the end time.
            callback._start_time = dict.fromkeys(callback._start_time)
            callback._end_time = dict.fromkeys(callback._end_time)
        elif isinstance(callback, (ModelCheckpoint, *_AVERAGING)):
            vars(callback).update({name: copy.copy(value) for name, value in self.state.items()})
            if isinstance(callback, Callback):
                start_average(trainer, callback)
        else:
            self._restore_plain(dict(point or self.state))

    def _restore_plain(self, state: StateDict) -> None:
        metrics, present = state.pop(_METRICS, {}), self._metrics()
        for name in metrics.keys() & present.keys():
            ModuleState(**metrics[name]).restore(present[name])
        present_state = self.callback.state_dict()
        if state:
            self.callback.load_state_dict(moved_like(copy.deepcopy(state), present_state))
        elif present_state:
            rank_zero_warn(
                f"{self.name} had no state before the first round but has one now, so it is not rewound. Let its "
                "state_dict return the initial state from the start.",
            )


def other_callbacks(trainer: Trainer, owner: Callback) -> list[Callback]:
    """All callbacks of a Trainer except ours."""
    return [callback for callback in trainer.callbacks if callback is not owner]  # type: ignore[attr-defined]


def start_average(trainer: Trainer, callback: Callback) -> None:
    """Lets a callback start over with the present weights, if it averages weights."""
    if isinstance(callback, _AVERAGING):
        callback.setup(trainer, trainer.lightning_module, "fit")


def gradients_stay_masked(module: LightningModule, others: Sequence[Callback]) -> bool:
    """Whether no hook of a LightningModule or of other callbacks can change gradients after masking."""
    shared = ("on_after_backward", "on_before_optimizer_step")
    return not (
        any(is_overridden(hook, module) for hook in (*shared, "configure_gradient_clipping", "optimizer_step"))
        or any(is_overridden(hook, other, Callback) for hook in shared for other in others)
    )


def take(states: list[NamedState], name: str) -> StateDict | None:
    """Removes the first state with this name from a list and returns its content; ``None`` if there is none."""
    for index, entry in enumerate(states):
        if entry.name == name:
            return states.pop(index).state
    return None


def attributes(callback: Any, names: tuple[str, ...]) -> StateDict:
    """Copies those of the named attributes that a callback has."""
    present = vars(callback)
    return {name: copy.copy(present[name]) for name in names if name in present}

"""The fit loop that trains round after round."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.progress import _BaseProgress
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_lottery._lightning.data import DataOrder
from lightning_lottery._lightning.loggers import RoundLoggers
from lightning_lottery._lightning.memory import Memory, enter_folder


@dataclass(frozen=True)
class FinalRound:
    """What the Trainer knew after the last ticket, to come back to after the controls.

    Attributes:
        checkpoints: What the checkpoint callbacks remember.
        metrics: The three kinds of metrics of the Trainer.
    """

    checkpoints: list[tuple[ModelCheckpoint, dict[str, Any]]]
    metrics: tuple[dict[str, Any], ...]


class RoundsFit:
    """Turns the fit loop of a Trainer into one that trains round after round.

    Attributes:
        trainer: The Trainer.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: The callback that decides. Rounds are trained only while it is among the Trainer's callbacks.
    """

    def __init__(self, trainer: Trainer, owner: Callback) -> None:
        self.trainer = trainer
        self._owner = owner
        self._data = DataOrder(trainer)
        self._undo: list[Callable[[], None]] = []

    def install(
        self, begin: Callable[[], bool], boundary: Callable[[], bool], bar: Callable[[], dict[str, str]]
    ) -> None:
        """Installs the loop over rounds, until :meth:`undo`.

        Args:
            begin: Called when training is about to begin; says whether rounds are to be trained at all.
            boundary: Called after each round; says whether another one follows.
            bar: Texts for the progress bar, by name.
        """
        loop, trainer, owner = self.trainer.fit_loop, self.trainer, self._owner
        base = type(loop)

        # Calling run() again from on_train_end would nest; a subclass of the loop's own class iterates instead.
        def run(loop: Any) -> None:
            # The learning-rate finder runs the loop with other callbacks: then it is none of our business.
            if owner not in trainer.callbacks or not begin():  # type: ignore[attr-defined]
                base.run(loop)
                return
            base.run(loop)
            while boundary():
                base.run(loop)

        loop.__class__ = type(base.__name__, (base,), {"run": run, "__module__": base.__module__})
        self._undo.append(lambda: setattr(loop, "__class__", base))
        self._undo += self._data.watch()
        if (progress := trainer.progress_bar_callback) is not None:
            metrics = progress.get_metrics  # the one way to add text to any progress bar
            progress.get_metrics = lambda *args: {**bar(), **metrics(*args)}  # type: ignore[method-assign]
            self._undo.append(lambda: delattr(progress, "get_metrics"))

    def undo(self) -> None:
        """Leaves the Trainer as Lightning made it. May be called twice."""
        while self._undo:
            self._undo.pop()()

    def begin(self) -> None:
        """Remembers the state that every round starts from. Call it right before the first one."""
        trainer, loop = self.trainer, self.trainer.fit_loop
        data = [] if trainer.datamodule is None else [trainer.datamodule]  # type: ignore[attr-defined]
        self._memories = [Memory(part) for part in (*self._other_callbacks(), *data)]
        self._data.begin()
        # After all on_fit_start hooks: stochastic weight averaging lengthens the fit there, for its last pass.
        self._limits = (loop.max_epochs, trainer.accumulate_grad_batches)
        self._precision = copy.deepcopy(trainer.precision_plugin.state_dict())
        self._optimization = _OptimizationState(trainer)
        self.loggers = RoundLoggers(trainer)

    def enter_round(self, name: str) -> None:
        """Gives the round loggers and checkpoint folders of its own, inside those of the fit."""
        self.loggers.enter(name)
        for checkpoint in self._checkpoints():
            enter_folder(checkpoint, name)

    def rewind(self, same_data_order: bool) -> None:
        """Brings all but the weights back to the start: loops, optimizers, callbacks, data, generators.

        Call it with the weights of the next round in place, since optimizers may read them.

        Args:
            same_data_order: Whether the random generators return as well; else they go on drawing.
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        trainer.should_stop = False  # else the next round trains no batch
        loop.max_epochs, trainer.accumulate_grad_batches = self._limits
        axis = loop.epoch_loop._batches_that_stepped  # what loggers take for the step
        _reset(loop)
        loop.epoch_loop._batches_that_stepped = 0 if self.loggers.have_children else axis
        trainer._logger_connector.reset_results()  # these two as before every fit, or metrics of one round
        trainer._logger_connector.reset_metrics()  # pass for those of the next
        trainer.lightning_module.zero_grad(set_to_none=True)
        trainer.strategy.setup_optimizers(trainer)
        # setup_optimizers makes them as before the fit; moving what they hold is the strategy's next step there.
        _optimizers_to_device(trainer.strategy.optimizers, trainer.strategy.root_device)
        self._optimization.restore()
        trainer.precision_plugin.load_state_dict(copy.deepcopy(self._precision))  # the scale of 16-bit gradients
        for memory in self._memories:
            memory.restore(trainer)
        self._data.rewind(same_data_order)

    def keep_final(self) -> FinalRound:
        """Notes what is known after the last ticket."""
        trainer = self.trainer
        return FinalRound(
            [(checkpoint, dict(vars(checkpoint))) for checkpoint in self._checkpoints()],
            (dict(trainer.callback_metrics), dict(trainer.logged_metrics), dict(trainer.progress_bar_metrics)),
        )

    def restore_final(self, final: FinalRound) -> None:
        """Brings back checkpoints and metrics of the last ticket, so that ``test("best")`` tests it."""
        for checkpoint, memory in final.checkpoints:
            vars(checkpoint).update(memory)
        connector = self.trainer._logger_connector  # the three kinds of metrics have no setter
        connector.reset_results()
        connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics = final.metrics

    def stop_on_sigterm(self) -> None:
        """Ends the fit as Lightning does if the process was told to terminate during the round."""
        if self.trainer.received_sigterm:
            raise SIGTERMException

    def _reached(self) -> tuple[bool, bool]:
        """Whether the training is at its ``max_epochs``, and whether at its ``max_steps``."""
        loop: Any = self.trainer.fit_loop
        epochs = loop.epoch_progress.current.processed  # current_epoch counts one less in the last hooks
        in_epochs = loop.max_epochs not in (None, -1) and epochs >= loop.max_epochs
        return bool(in_epochs), bool(loop.max_steps != -1 and self.trainer.global_step >= loop.max_steps)

    def is_whole(self) -> bool:
        """Whether the round went to its end, and was not cut short in its last epoch or before."""
        in_epochs, in_steps = self._reached()
        # An epoch that is stopped in its middle counts as processed.
        return in_steps or (in_epochs and self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)

    def time_is_up(self) -> bool:
        """Whether ``max_time``, the budget of all rounds together, is spent."""
        timers = (callback for callback in self._other_callbacks() if isinstance(callback, Timer))
        return any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)

    def nothing_to_train(self) -> bool:
        """Whether this fit will not train a single batch."""
        return self.trainer.limit_train_batches == 0 or (self.trainer.global_step > 0 and any(self._reached()))

    def has_seen_batches(self) -> bool:
        """Whether the round has seen data, whether or not an optimizer stepped."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.completed > 0  # total_batch_idx is off by one

    def _other_callbacks(self) -> list[Callback]:
        return [callback for callback in self.trainer.callbacks if callback is not self._owner]  # type: ignore[attr-defined]

    def _checkpoints(self) -> list[ModelCheckpoint]:
        return [callback for callback in self._other_callbacks() if isinstance(callback, ModelCheckpoint)]

    def gradients_are_ours(self) -> bool:
        """Whether no hook of the LightningModule or of another callback may change gradients after the masking."""
        module = self.trainer.lightning_module
        shared = ("on_after_backward", "on_before_optimizer_step")
        return not (
            any(is_overridden(hook, module) for hook in (*shared, "configure_gradient_clipping", "optimizer_step"))
            or any(is_overridden(hook, other, Callback) for hook in shared for other in self._other_callbacks())
        )


class _OptimizationState:
    """Optimizers and schedulers of the first round, in case configure_optimizers gives the same objects again."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._states = [(part, copy.deepcopy(part.state_dict())) for part in self._parts()]  # without moments yet

    def _parts(self) -> list[Any]:
        return [*self._trainer.optimizers, *(config.scheduler for config in self._trainer.lr_scheduler_configs)]

    def restore(self) -> None:
        """Brings those that are still used back to their first state."""
        in_use = set(map(id, self._parts()))
        for part, state in self._states:
            if id(part) in in_use:
                part.load_state_dict(copy.deepcopy(state))


def _reset(loop: _Loop) -> None:
    """Sets the counters of a loop and of those inside it to zero, and clears the marks of a resumed fit."""
    marks = ("_restarting", "_loaded_from_state_dict", "_resuming_from_checkpoint", "_has_run", "_skip_backward")
    for name in marks:
        if name in vars(loop):
            setattr(loop, name, False)
    if hasattr(loop, "reset_restart_stage"):  # since 2.5.1
        loop.reset_restart_stage()
    for part in vars(loop).values():
        if isinstance(part, _BaseProgress):
            part.reset()
        elif isinstance(part, _Loop):
            _reset(part)

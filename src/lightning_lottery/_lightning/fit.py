"""A fit of many rounds: rewinding, saving and restoring everything that the Trainer holds."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_lottery._lightning import loop_state, metrics
from lightning_lottery._lightning.checkpoints import RoundCheckpoints, take
from lightning_lottery._lightning.data_order import DataOrder
from lightning_lottery._lightning.loggers import RoundLoggers
from lightning_lottery._lightning.loop import Hooks, install
from lightning_lottery._lightning.other_callbacks import CallbackState
from lightning_lottery._lightning.progress import Progress
from lightning_lottery._lightning.training_data import TrainingData, training_data


class RoundsFit:
    """A fit that trains round after round.

    Attributes:
        trainer: The Trainer.
        checkpoints: Its checkpoint callbacks, with a folder per round.
        progress: How far the round is.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: Our callback. Rounds are trained only while it is among the Trainer's callbacks.
    """

    def __init__(self, trainer: Trainer, owner: Callback) -> None:
        self.trainer = trainer
        self._owner = owner
        self.checkpoints = RoundCheckpoints(trainer)
        self._data = DataOrder(trainer)
        self._undo: list[Callable[[], None]] = []
        self.progress = Progress(trainer)
        self._max_epochs: int | None = None

    def install(self, hooks: Hooks) -> None:
        """Installs the loop over rounds, until :meth:`undo`."""
        self._undo += install(self.trainer, self._owner, hooks, self._data)

    def undo(self, has_failed: bool = False) -> None:
        """Restores the Trainer. May be called twice.

        Args:
            has_failed: Whether ``on_exception`` of other callbacks will still be called.
        """
        while self._undo:
            self._undo.pop()()
        self.checkpoints.leave_after_exception() if has_failed else self.checkpoints.leave()

    def save_start(self) -> None:
        """Saves the state that every round starts from. Call it right before the first round."""
        trainer = self.trainer
        self._memories = [CallbackState(part) for part in self._parts()]
        self._data.save_start()
        self._optimization = loop_state.InitialOptimizers(trainer)
        self._precision = copy.deepcopy(trainer.precision_plugin.state_dict())
        self._remember_limits()

    def _remember_limits(self) -> None:
        # Called after all on_fit_start hooks: stochastic weight averaging lengthens the fit there.
        trainer, loop = self.trainer, self.trainer.fit_loop
        loop.max_epochs = self._max_epochs if self._max_epochs is not None else loop.max_epochs
        self._limits = limits = (loop.max_epochs, trainer.accumulate_grad_batches)
        self._undo.insert(0, lambda: setattr(loop, "max_epochs", limits[0]))
        self.loggers = RoundLoggers(trainer)

    def start(self) -> dict[str, Any]:
        """The state that every round starts from, as plain values, for another process."""
        return {
            "memories": [(memory.name, memory.state) for memory in self._memories],
            "data": self.gather(self._data.start()),
            "optimization": self._optimization.states,
            "precision": self._precision,
        }

    def restore_start(self, start: dict[str, Any]) -> None:
        """Restores the state that every round starts from, as saved by :meth:`start` in another process."""
        states = list(start["memories"])
        self._memories = [
            CallbackState(part, take(states, CallbackState(part, {}).name)) for part in self._parts()
        ]
        self._data.restore_start(start["data"][self.trainer.global_rank])
        self._optimization = loop_state.InitialOptimizers(self.trainer, start["optimization"])
        self._precision = start["precision"]
        self._remember_limits()

    def enter_round(self, name: str, number: int, prefix: str) -> None:
        """Switches to the loggers and checkpoint folders of a round, inside those of the fit."""
        self.loggers.enter(name, number, prefix)
        self.checkpoints.enter(name)

    def rewind(
        self,
        same_data_order: bool,
        point: dict[str, Any] | None = None,
        fresh_optimizer: bool = False,
        fine_tuning: tuple[int, float] | None = None,
    ) -> None:
        """Rewinds everything except the weights: loops, optimizers, callbacks, data, generators.

        The weights of the next round must be in place, since optimizers may read them.

        Args:
            same_data_order: Whether the random generators are rewound too; otherwise they continue.
            point: The result of :meth:`point` where the round starts; by default the beginning.
            fresh_optimizer: Whether optimizers start without their per-weight state at the point.
            fine_tuning: Number of epochs and constant learning rate of the round; by default the schedule applies.
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        trainer.should_stop = False  # otherwise the next round would train no batch
        loop.max_epochs, trainer.accumulate_grad_batches = self._limits
        axis = loop.epoch_loop._batches_that_stepped  # the step that loggers see
        loop_state.reset(loop)
        loop.epoch_loop._batches_that_stepped = 0
        trainer._logger_connector.reset_results()  # as before every fit; otherwise metrics of one round
        trainer._logger_connector.reset_metrics()  # would count as those of the next
        trainer.lightning_module.zero_grad(set_to_none=True)
        trainer.strategy.setup_optimizers(trainer)
        # At the start of a fit, the strategy then moves their state to its device. Do the same here.
        _optimizers_to_device(trainer.strategy.optimizers, trainer.strategy.root_device)
        self._optimization.restore()
        trainer.precision_plugin.load_state_dict(copy.deepcopy(self._precision))  # the scale of 16-bit gradients
        if point is not None:
            loop_state.load_optimization(trainer, point["optimization"], fresh_optimizer)
        at_point = [] if point is None else list(point["memories"])
        for memory in self._memories:
            memory.restore(trainer, take(at_point, memory.name))
        self._data.rewind(same_data_order, None if point is None else self._own(point["data"]))
        if point is not None:
            # A scheduler may need a metric before the next validation.
            metrics.restore_last_values(trainer, point["metrics"])
            loop_state.settle(trainer, validate=False)
        if not self.loggers.have_children:
            loop.epoch_loop._batches_that_stepped = axis
        if fine_tuning is not None:
            self.fine_tune(*fine_tuning)
        self.progress.start_round()

    def allow_epochs(self, epochs: int) -> None:
        """Allows Lightning to load a checkpoint of a round that has more epochs than ``max_epochs``."""
        loop = self.trainer.fit_loop
        self._max_epochs, loop.max_epochs = loop.max_epochs, max(epochs, loop.max_epochs or 0)

    def fine_tune(self, epochs: int, lr: float) -> None:
        """Sets a constant learning rate and a number of epochs for a round."""
        self.trainer.fit_loop.max_epochs = epochs
        self.trainer.strategy.lr_scheduler_configs = []
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.full_like(group["lr"], lr) if isinstance(group["lr"], torch.Tensor) else lr

    def point(self) -> dict[str, Any]:
        """The current state as plain values, for :meth:`rewind`. Call it between batches or epochs."""
        return {
            "optimization": loop_state.optimization(self.trainer),
            "memories": [(memory.name, memory.at_point()) for memory in self._memories],
            "metrics": metrics.keep(self.trainer),
            "data": self.gather(self._data.moment()),
        }

    def moment(self) -> dict[str, Any]:
        """The state that is missing in Lightning's checkpoints to resume bit for bit, as plain values."""
        trainer = self.trainer
        # In the middle of a batch, for example in a signal handler, other processes cannot be asked.
        is_exact = not trainer.interrupted and not loop_state.is_within_batch(trainer)
        gradients = {n: p.grad for n, p in trainer.lightning_module.named_parameters() if p.grad is not None}
        return {
            "is_exact": is_exact,
            "data": self.gather(self._data.moment()) if is_exact else [self._data.moment()],
            "metrics": metrics.capture(trainer),
            "gradients": gradients if self._gradients_count() else {},
            "should_stop": trainer.should_stop,
            "checkpoints": self.checkpoints.memories(),
            "first_step": self.progress.first_step,
            "first_batch": self.progress.first_batch,
        }

    def training_data(
        self, prunable: Sequence[torch.nn.Parameter], seed: int
    ) -> AbstractContextManager[TrainingData]:
        """Gives criteria access to data and loss, with separate random numbers and without side effects."""
        return training_data(self.trainer, self._data, prunable, seed)

    def generators(self) -> list[dict[str, Any]]:
        """The state of the generators of all processes, as plain values."""
        return self.gather(self._data.generators())

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Restores the result of :meth:`generators`."""
        self._data.restore_generators(self._own(states))

    def training_flags(self) -> dict[str, bool]:
        """The ``training`` flags that layers will have after the validation that is running, if any."""
        # They are stored nowhere else while the module is in evaluation mode.
        return dict(self.trainer.fit_loop.epoch_loop.val_loop._module_mode.mode) if self.trainer.validating else {}

    def _gradients_count(self) -> bool:
        """Whether the next backward pass will add to the current gradients."""
        # The loop's own rule, which also steps on the last batch of an epoch.
        loop = self.trainer.fit_loop
        return not self.trainer.lightning_module.automatic_optimization or loop._should_accumulate()

    def logged_steps(self) -> int:
        """The step that loggers see."""
        # The step of all loggers. Lightning has no public attribute for it.
        return self.trainer.fit_loop.epoch_loop._batches_that_stepped

    def set_logged_steps(self, steps: int) -> None:
        """Sets the step for loggers whose steps must not fall."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = steps

    def can_resume_within_rounds(self) -> bool:
        """Whether a round can continue at a checkpoint. With Lightning's averages of weights it cannot."""
        return not any(memory.is_average for memory in self._memories)

    def restore_moment(self, moment: dict[str, Any]) -> None:
        """Restores the result of :meth:`moment`, after Lightning has loaded its checkpoint."""
        trainer = self.trainer
        self.progress.first_step = moment["first_step"]
        self.progress.first_batch = moment.get("first_batch", 0)
        metrics.restore(trainer, moment["metrics"])
        self._data.restore_moment(self._own(moment["data"]))
        trainer.should_stop = moment["should_stop"]  # it may cause a validation
        loop_state.settle(trainer, validate=True)
        metrics.settle(trainer)
        self.checkpoints.restore(moment["checkpoints"])
        for name, parameter in trainer.lightning_module.named_parameters():
            if name in moment["gradients"]:
                parameter.grad = moment["gradients"][name].to(parameter.device)

    def keep_final(self) -> dict[str, Any]:
        """The metrics and checkpoint states after the last ticket, to be restored after the controls."""
        return {"checkpoints": self.checkpoints.memories(), "metrics": metrics.keep(self.trainer)}

    def restore_final(self, final: dict[str, Any]) -> None:
        """Restores the result of :meth:`keep_final`, so that ``test("best")`` tests the last ticket."""
        self.checkpoints.restore(final["checkpoints"])
        if self.trainer.is_global_zero:
            self.checkpoints.restore_last()
        metrics.restore_last_values(self.trainer, final["metrics"])

    def stop_on_sigterm(self) -> None:
        """Ends the fit, as Lightning does, if the process received SIGTERM during the round."""
        if self.trainer.received_sigterm:
            raise SIGTERMException

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, in the order of their ranks."""
        if self.trainer.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(values, value)
        return values

    def _own(self, values: list[Any]) -> Any:
        return values[self.trainer.global_rank] if len(values) == self.trainer.world_size else values[0]

    def _parts(self) -> list[Any]:
        data = [] if self.trainer.datamodule is None else [self.trainer.datamodule]  # type: ignore[attr-defined]
        return [*self._other_callbacks(), *data]

    def _other_callbacks(self) -> list[Callback]:
        return [callback for callback in self.trainer.callbacks if callback is not self._owner]  # type: ignore[attr-defined]

    def gradients_stay_masked(self) -> bool:
        """Whether gradients stay masked: no hook of the LightningModule or of a callback can change them later."""
        module = self.trainer.lightning_module
        shared = ("on_after_backward", "on_before_optimizer_step")
        return not (
            any(is_overridden(hook, module) for hook in (*shared, "configure_gradient_clipping", "optimizer_step"))
            or any(is_overridden(hook, other, Callback) for hook in shared for other in self._other_callbacks())
        )

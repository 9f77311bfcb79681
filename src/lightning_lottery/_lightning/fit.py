"""The fit loop that trains round after round."""

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.model_helpers import is_overridden

from lightning_lottery._lightning import metrics, position
from lightning_lottery._lightning.callback_state import CallbackState
from lightning_lottery._lightning.checkpoints import RoundCheckpoints, take
from lightning_lottery._lightning.data import DataOrder
from lightning_lottery._lightning.hooks import Hooks, install
from lightning_lottery._lightning.loggers import RoundLoggers
from lightning_lottery._lightning.progress import Progress
from lightning_lottery._lightning.training_data import TrainingData, training_data


class RoundsFit:
    """Turns the fit loop of a Trainer into one that trains round after round.

    Attributes:
        trainer: The Trainer.
        checkpoints: Its checkpoint callbacks.
        progress: How far the round is.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: The callback that decides. Rounds are trained only while it is among the Trainer's callbacks.
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
        """Leaves the Trainer as Lightning made it. May be called twice.

        Args:
            has_failed: Whether ``on_exception`` of other callbacks is still to come.
        """
        while self._undo:
            self._undo.pop()()
        self.checkpoints.leave_after_exception() if has_failed else self.checkpoints.leave()

    def begin(self) -> None:
        """Remembers the state that every round starts from. Call it right before the first one."""
        trainer = self.trainer
        self._memories = [CallbackState(part) for part in self._parts()]
        self._data.begin()
        self._optimization = position.FirstOptimization(trainer)
        self._precision = copy.deepcopy(trainer.precision_plugin.state_dict())
        self._remember_limits()

    def _remember_limits(self) -> None:
        # After all on_fit_start hooks: stochastic weight averaging lengthens the fit there, for its last pass.
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

    def begin_from(self, start: dict[str, Any]) -> None:
        """Takes over the state that every round starts from as another process gave it by :meth:`start`."""
        states = list(start["memories"])
        self._memories = [
            CallbackState(part, take(states, CallbackState(part, {}).name)) for part in self._parts()
        ]
        self._data.begin_from(start["data"][self.trainer.global_rank])
        self._optimization = position.FirstOptimization(self.trainer, start["optimization"])
        self._precision = start["precision"]
        self._remember_limits()

    def enter_round(self, name: str, number: int, prefix: str) -> None:
        """Gives the round loggers and checkpoint folders of its own, inside those of the fit."""
        self.loggers.enter(name, number, prefix)
        self.checkpoints.enter(name)

    def rewind(
        self,
        same_data_order: bool,
        point: dict[str, Any] | None = None,
        fresh_optimizer: bool = False,
        shortened: tuple[int, float] | None = None,
    ) -> None:
        """Brings all but the weights back: loops, optimizers, callbacks, data, generators.

        Call it with the weights of the next round in place, since optimizers may read them.

        Args:
            same_data_order: Whether the random generators return as well; else they go on drawing.
            point: What :meth:`point` gave where the round is to begin; the start if left out.
            fresh_optimizer: Whether optimizers begin without what they remembered of each weight at the point.
            shortened: Epochs of the round and its constant learning rate; by the schedule if left out.
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        trainer.should_stop = False  # else the next round trains no batch
        loop.max_epochs, trainer.accumulate_grad_batches = self._limits
        axis = loop.epoch_loop._batches_that_stepped  # what loggers take for the step
        position.reset(loop)
        loop.epoch_loop._batches_that_stepped = 0
        trainer._logger_connector.reset_results()  # these two as before every fit, or metrics of one round
        trainer._logger_connector.reset_metrics()  # pass for those of the next
        trainer.lightning_module.zero_grad(set_to_none=True)
        trainer.strategy.setup_optimizers(trainer)
        # setup_optimizers makes them as before the fit; moving what they hold is the strategy's next step there.
        _optimizers_to_device(trainer.strategy.optimizers, trainer.strategy.root_device)
        self._optimization.restore()
        trainer.precision_plugin.load_state_dict(copy.deepcopy(self._precision))  # the scale of 16-bit gradients
        if point is not None:
            position.load_optimization(trainer, point["optimization"], fresh_optimizer)
        at_point = [] if point is None else list(point["memories"])
        for memory in self._memories:
            memory.restore(trainer, take(at_point, memory.name))
        self._data.rewind(same_data_order, None if point is None else self._own(point["data"]))
        if point is not None:
            metrics.put_back(trainer, point["metrics"])  # a scheduler may look at one before the next validation
            position.settle(trainer, validate=False)
        if not self.loggers.have_children:
            loop.epoch_loop._batches_that_stepped = axis
        if shortened is not None:
            self.shorten(*shortened)
        self.progress.start_round()

    def allow_epochs(self, epochs: int) -> None:
        """Lets Lightning load a checkpoint of a round that is longer than the others."""
        loop = self.trainer.fit_loop
        self._max_epochs, loop.max_epochs = loop.max_epochs, max(epochs, loop.max_epochs or 0)

    def shorten(self, epochs: int, lr: float) -> None:
        """Lets a round train at a constant learning rate for a number of epochs."""
        self.trainer.fit_loop.max_epochs = epochs
        self.trainer.strategy.lr_scheduler_configs = []
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.full_like(group["lr"], lr) if isinstance(group["lr"], torch.Tensor) else lr

    def point(self) -> dict[str, Any]:
        """Where the training stands, as plain values for :meth:`rewind`; call it between batches or epochs."""
        return {
            "optimization": position.optimization(self.trainer),
            "memories": [(memory.name, memory.at_point()) for memory in self._memories],
            "metrics": metrics.keep(self.trainer),
            "data": self.gather(self._data.moment()),
        }

    def moment(self) -> dict[str, Any]:
        """What a checkpoint of Lightning lacks to resume bit for bit, as plain values."""
        trainer = self.trainer
        # In the middle of a batch, as in the handler of a signal, other processes may not be here to be asked.
        is_exact = not trainer.interrupted and not position.is_within_batch(trainer)
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
        """Lets criteria look at data and loss, with random numbers of their own, and without leaving a trace."""
        return training_data(self.trainer, self._data, prunable, seed)

    def generators(self) -> list[dict[str, Any]]:
        """Where the generators of all processes are now, as plain values."""
        return self.gather(self._data.generators())

    def restore_generators(self, states: list[dict[str, Any]]) -> None:
        """Puts them back."""
        self._data.restore_generators(self._own(states))

    def training_flags(self) -> dict[str, bool]:
        """The ``training`` flags that layers return to after the validation, if one is running."""
        # The only place that remembers them while the module is in evaluation mode.
        return dict(self.trainer.fit_loop.epoch_loop.val_loop._module_mode.mode) if self.trainer.validating else {}

    def _gradients_count(self) -> bool:
        """Whether the next step is to add to the gradients of now."""
        # The loop's own rule: it also steps on an epoch's last batch.
        loop = self.trainer.fit_loop
        return not self.trainer.lightning_module.automatic_optimization or loop._should_accumulate()

    def logged_steps(self) -> int:
        """What loggers take for the step."""
        # The axis of all loggers; nothing public gives or sets it.
        return self.trainer.fit_loop.epoch_loop._batches_that_stepped

    def resume_axis(self, steps: int) -> None:
        """Lets loggers whose steps may not fall go on where they were."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = steps

    def goes_on_within_rounds(self) -> bool:
        """Whether a round can go on where a checkpoint was taken; Lightning's averages of weights cannot."""
        return not any(memory.is_average for memory in self._memories)

    def resume(self, moment: dict[str, Any]) -> None:
        """Goes on where :meth:`moment` was called; Lightning has loaded its checkpoint."""
        trainer = self.trainer
        self.progress.first_step = moment["first_step"]
        self.progress.first_batch = moment.get("first_batch", 0)
        metrics.restore(trainer, moment["metrics"])
        self._data.resume(self._own(moment["data"]))
        trainer.should_stop = moment["should_stop"]  # a reason to validate
        position.settle(trainer, validate=True)
        metrics.settle(trainer)
        self.checkpoints.restore(moment["checkpoints"])
        for name, parameter in trainer.lightning_module.named_parameters():
            if name in moment["gradients"]:
                parameter.grad = moment["gradients"][name].to(parameter.device)

    def keep_final(self) -> dict[str, Any]:
        """Notes what the Trainer knows after the last ticket, to come back to after the controls."""
        return {"checkpoints": self.checkpoints.memories(), "metrics": metrics.keep(self.trainer)}

    def restore_final(self, final: dict[str, Any]) -> None:
        """Brings back checkpoints and metrics of the last ticket, so that ``test("best")`` tests it."""
        self.checkpoints.restore(final["checkpoints"])
        if self.trainer.is_global_zero:
            self.checkpoints.restore_last()
        metrics.put_back(self.trainer, final["metrics"])

    def stop_on_sigterm(self) -> None:
        """Ends the fit as Lightning does if the process was told to terminate during the round."""
        if self.trainer.received_sigterm:
            raise SIGTERMException

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in the order of their ranks."""
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

    def gradients_are_ours(self) -> bool:
        """Whether no hook of the LightningModule or of another callback may change gradients after the masking."""
        module = self.trainer.lightning_module
        shared = ("on_after_backward", "on_before_optimizer_step")
        return not (
            any(is_overridden(hook, module) for hook in (*shared, "configure_gradient_clipping", "optimizer_step"))
            or any(is_overridden(hook, other, Callback) for hook in shared for other in self._other_callbacks())
        )

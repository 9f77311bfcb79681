"""A fit of many rounds: rewinding, saving and restoring everything that the Trainer holds."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_lottery._lightning import loop_state, metrics
from lightning_lottery._lightning.loggers import RoundLoggers
from lightning_lottery._lightning.other_callbacks import CallbackState, gradients_stay_masked, take
from lightning_lottery._lightning.rounds_loop import RoundsLoop
from lightning_lottery._lightning.training_data import TrainingData, training_data
from lightning_lottery.storage import (
    FitEnd,
    FitMoment,
    FitPoint,
    FitStart,
    GeneratorState,
    SearchLength,
    StateDict,
)
from lightning_lottery.tickets import RoundId


class RoundsFit:
    """A fit that trains round after round, from its first round on.

    Attributes:
        trainer: The Trainer.
        progress: How far the round is.
        checkpoints: The checkpoint callbacks, with a folder per round.
        loggers: The loggers, with a child per round.

    Args:
        loop: The fit loop, with its data loaded. See :meth:`begin` and :meth:`restored`.
        memories: The states of other callbacks before the first round.
        optimizers: The optimizers before the first round.
        precision: The state of the precision plugin before the first round.
    """

    def __init__(
        self,
        loop: RoundsLoop,
        memories: list[CallbackState],
        optimizers: loop_state.InitialOptimizers,
        precision: StateDict,
    ) -> None:
        self.trainer: Trainer = loop.trainer
        self.progress = loop.progress
        self.checkpoints = loop.checkpoints
        self._loop, self._data = loop, loop.data
        self._memories, self._optimizers, self._precision = memories, optimizers, precision
        self._limits = loop.limits()
        self.loggers = RoundLoggers(loop.trainer)

    @classmethod
    def begin(cls, loop: RoundsLoop) -> "RoundsFit":
        """Begins a fit with the present state of the Trainer. Call it right before the first round."""
        memories = [CallbackState(part) for part in _parts(loop)]
        loop.data.save_start()
        precision = copy.deepcopy(loop.trainer.precision_plugin.state_dict())
        return cls(loop, memories, loop_state.InitialOptimizers(loop.trainer), precision)

    @classmethod
    def restored(cls, loop: RoundsLoop, start: FitStart) -> "RoundsFit":
        """Continues a fit that another process has begun, with what it has saved as :meth:`start`."""
        states = list(start.memories)
        memories = [CallbackState(part, take(states, CallbackState(part, {}).name)) for part in _parts(loop)]
        loop.data.restore_start(start.data[loop.trainer.global_rank])
        optimizers = loop_state.InitialOptimizers(loop.trainer, start.optimization)
        return cls(loop, memories, optimizers, start.precision)

    def start(self) -> FitStart:
        """The state that every round starts from, for another process."""
        return FitStart(
            memories=[memory.at_start() for memory in self._memories],
            data=self.gather(self._data.start()),
            optimization=self._optimizers.states,
            precision=self._precision,
        )

    def other_options(self, start: FitStart) -> str | None:
        """Describes the first difference to the optimizers and schedulers of another fit; ``None`` without any."""
        return loop_state.other_options(start.optimization, self._optimizers.states)

    def enter_round(self, entry: RoundId) -> None:
        """Switches to the loggers and checkpoint folders of a round, inside those of the fit."""
        self.loggers.enter(entry)
        self.checkpoints.enter(entry.name)

    def rewind(
        self,
        same_data_order: bool,
        point: FitPoint | None = None,
        fresh_optimizer: bool = False,
        fine_tuning: tuple[int, float] | None = None,
        data_seed: int | None = None,
        search: SearchLength | None = None,
    ) -> None:
        """Rewinds everything except the weights: loops, optimizers, callbacks, data, generators.

        The weights of the next round must be in place, since optimizers may read them.

        Args:
            same_data_order: Whether the random generators are rewound too; otherwise they continue.
            point: The result of :meth:`point` where the round starts; by default the beginning.
            fresh_optimizer: Whether optimizers start without their per-weight state at the point.
            fine_tuning: Number of epochs and constant learning rate of the round; by default the schedule applies.
            data_seed: A seed for all random generators, instead of rewinding them.
            search: The length of a search round; by default the Trainer's limits apply.
        """
        trainer, loop = self.trainer, self.trainer.fit_loop
        trainer.should_stop = False  # otherwise the next round would train no batch
        self._limits.restore()
        axis = loop.epoch_loop._batches_that_stepped  # the step that loggers see
        loop_state.reset(loop)
        loop.epoch_loop._batches_that_stepped = 0
        trainer._logger_connector.reset_results()  # as before every fit; otherwise metrics of one round
        trainer._logger_connector.reset_metrics()  # would count as those of the next
        trainer.lightning_module.zero_grad(set_to_none=True)
        if search is not None:
            self._limit_to(search, point)
        loop_state.set_up_optimizers(trainer)
        self._optimizers.restore()
        if search is not None and point is not None:
            point = self._optimizers.at_point(point)
        trainer.precision_plugin.load_state_dict(copy.deepcopy(self._precision))  # the scale of 16-bit gradients
        if point is not None:
            loop_state.load_optimization(trainer, point.optimization, fresh_optimizer)
        at_point = [] if point is None else list(point.memories)
        for memory in self._memories:
            memory.restore(trainer, take(at_point, memory.name))
        self._data.rewind(same_data_order, None if point is None else self._own(point.data), data_seed)
        if point is not None:
            # A scheduler may need a metric before the next validation.
            metrics.restore_last_values(trainer, point.metrics)
            loop_state.settle(trainer, validate=False)
        if not self.loggers.have_children:
            loop.epoch_loop._batches_that_stepped = axis
        if fine_tuning is not None:
            self.fine_tune(*fine_tuning)
        self.progress.start_round()

    def _limit_to(self, length: SearchLength, point: FitPoint | None) -> None:
        """Makes the length of a round that starts at a point the limit of the Trainer."""
        step, epochs = (0, 0) if point is None else (point.step, point.epochs)
        self._limits.limit_to(length, step, epochs)

    def resume_search_round(self, length: SearchLength, point: FitPoint | None) -> None:
        """Limits a search round that was resumed, after Lightning has loaded its checkpoint.

        Args:
            length: The length of the round.
            point: The point where the round has started; ``None`` for the beginning.
        """
        state = loop_state.optimization(self.trainer)
        self._limit_to(length, point)
        loop_state.set_up_optimizers(self.trainer)  # schedulers were made for the length of other rounds
        loop_state.load_optimizers(self.trainer, state)

    def validate_at_end_of_search_round(self) -> None:
        """Lets a search round validate after its last step. Call it after all hooks of every batch."""
        self._limits.validate_at_end()

    def fine_tune(self, epochs: int, lr: float) -> None:
        """Sets a constant learning rate and a number of epochs for a round."""
        self.trainer.fit_loop.max_epochs = epochs
        self.trainer.strategy.lr_scheduler_configs = []
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = torch.full_like(group["lr"], lr) if isinstance(group["lr"], torch.Tensor) else lr

    def point(self) -> FitPoint:
        """The current state, for :meth:`rewind`. Call it between batches or epochs."""
        epochs: Any = self.trainer.fit_loop.epoch_progress.current
        return FitPoint(
            optimization=loop_state.optimization(self.trainer),
            memories=[memory.at_point() for memory in self._memories],
            metrics=metrics.last_values(self.trainer),
            data=self.gather(self._data.moment()),
            step=self.trainer.global_step,
            epochs=epochs.processed,
        )

    def moment(self) -> FitMoment:
        """The state that is missing in Lightning's checkpoints to resume bit for bit."""
        trainer = self.trainer
        # In the middle of a batch, for example in a signal handler, other processes cannot be asked.
        is_exact = not trainer.interrupted and not loop_state.is_within_batch(trainer)
        gradients = {n: p.grad for n, p in trainer.lightning_module.named_parameters() if p.grad is not None}
        return FitMoment(
            is_exact=is_exact,
            data=self.gather(self._data.moment()) if is_exact else [self._data.moment()],
            metrics=metrics.capture(trainer),
            gradients=gradients if self._gradients_count() else {},
            should_stop=trainer.should_stop,
            checkpoints=self.checkpoints.states(),
            first_step=self.progress.first_step,
            first_batch=self.progress.first_batch,
        )

    def restore_moment(self, moment: FitMoment, data_seed: int | None = None) -> None:
        """Restores the result of :meth:`moment`, after Lightning has loaded its checkpoint.

        Args:
            moment: The state.
            data_seed: What :meth:`rewind` was given for this round.
        """
        trainer = self.trainer
        self.progress.continue_round(moment.first_step, moment.first_batch)
        metrics.restore(trainer, moment.metrics)
        self._data.restore_moment(self._own(moment.data), data_seed)
        trainer.should_stop = moment.should_stop  # it may cause a validation
        self._limits.validate_at_end()  # a checkpoint of the last step was written before that
        loop_state.settle(trainer, validate=True)
        metrics.settle(trainer)
        self.checkpoints.restore(moment.checkpoints)
        for name, parameter in trainer.lightning_module.named_parameters():
            if name in moment.gradients:
                parameter.grad = moment.gradients[name].to(parameter.device)

    def end(self) -> FitEnd:
        """The metrics and checkpoint states after the last ticket, to be restored after the controls."""
        return FitEnd(self.checkpoints.states(), metrics.last_values(self.trainer))

    def restore_end(self, end: FitEnd) -> None:
        """Restores the result of :meth:`end`, so that ``test("best")`` tests the last ticket."""
        self.checkpoints.restore(end.checkpoints)
        if self.trainer.is_global_zero:
            self.checkpoints.restore_last()
        metrics.restore_last_values(self.trainer, end.metrics)

    def training_data(
        self, prunable: Sequence[torch.nn.Parameter], seed: int
    ) -> AbstractContextManager[TrainingData]:
        """Gives criteria access to data and loss, with separate random numbers and without side effects."""
        return training_data(self.trainer, self._data, prunable, seed)

    def generators(self) -> list[GeneratorState]:
        """The state of the generators of all processes."""
        return self.gather(self._data.generators())

    def restore_generators(self, states: list[GeneratorState]) -> None:
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

    def gradients_stay_masked(self) -> bool:
        """Whether no hook of the LightningModule or of another callback can change gradients after masking."""
        return gradients_stay_masked(self.trainer.lightning_module, self._loop.other_callbacks())


def _parts(loop: RoundsLoop) -> list[Any]:
    """Everything with a state that is rewound like that of a callback."""
    module = loop.trainer.datamodule  # type: ignore[attr-defined]
    return [*loop.other_callbacks(), *([] if module is None else [module])]

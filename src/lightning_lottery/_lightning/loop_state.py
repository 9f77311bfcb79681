"""The state of loops, optimizers and schedulers: resetting, saving and resuming it."""

import copy
import warnings
import weakref
from dataclasses import replace
from typing import Any

import torch
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.progress import _BaseProgress

from lightning_lottery.storage import FitPoint, Optimization, StateDict


def reset(loop: _Loop) -> None:
    """Resets the counters of a loop and its inner loops, and the flags of a resumed fit."""
    clear_resume_flags(loop)
    for part in vars(loop).values():
        if isinstance(part, _BaseProgress):
            part.reset()
        elif isinstance(part, _Loop):
            reset(part)


def clear_resume_flags(loop: _Loop) -> None:
    """Clears the flags of a resumed fit in a loop and its inner loops; the counters stay."""
    marks = ("_restarting", "_loaded_from_state_dict", "_resuming_from_checkpoint", "_has_run", "_skip_backward")
    for name in marks:
        if name in vars(loop):
            setattr(loop, name, False)
    if hasattr(loop, "reset_restart_stage"):  # since 2.5.1
        loop.reset_restart_stage()
    for part in vars(loop).values():
        if isinstance(part, _Loop):
            clear_resume_flags(part)


def settle(trainer: Trainer, validate: bool) -> None:
    """Moves loaded loops to one of two positions: between epochs, or between batches.

    A checkpoint may be written in any hook, and Lightning would skip everything after this hook. The data must be
    loaded.

    Args:
        trainer: The Trainer, with loaded loops and restored metrics.
        validate: Whether to run a validation that is due at this position.
    """
    loop: Any = trainer.fit_loop
    loop.epoch_loop.val_loop._has_run = False  # set in an earlier, interrupted fit of this Trainer
    epochs = loop.epoch_progress
    for tracker in (epochs.current, epochs.total):
        tracker.ready = tracker.started  # the epoch had not begun, so its hooks are called again
    if epochs.current.processed == epochs.current.ready:
        if epochs.current.completed < epochs.current.processed:
            # At the end of an epoch, checkpoints are saved before schedulers that use metrics step.
            loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        for tracker in (epochs.current, epochs.total):
            tracker.completed = tracker.processed
        clear_resume_flags(loop)
    else:
        _settle_batch(trainer, validate)


def end_epoch(loop: Any) -> None:
    """Ends a training that was resumed after its last batch, in the middle of an epoch.

    That happens when the limit of steps was reached or the training was stopped. Lightning would skip the
    validation and all remaining hooks.
    """
    epoch_loop, fetcher = loop.epoch_loop, loop._data_fetcher
    loop.reset()
    loop.on_run_start()
    loop.on_advance_start()
    epoch_loop.reset()
    epoch_loop.on_run_start(fetcher)
    if epoch_loop._should_check_val_fx(fetcher):
        validation = epoch_loop.val_loop.batch_progress.current
        epoch_loop._skip_next_val = validation.ready == validation.processed  # already done before the checkpoint
        epoch_loop.on_advance_end(fetcher)
    loop.on_advance_end()
    loop.on_iteration_done()
    loop._restarting = False
    loop.on_run_end()


def _settle_batch(trainer: Trainer, validate: bool) -> None:
    epoch_loop: Any = trainer.fit_loop.epoch_loop
    batches = epoch_loop.batch_progress
    for tracker in (batches.current, batches.total):
        if tracker.started < tracker.ready:
            tracker.ready = tracker.started  # the next batch had only been fetched
    if batches.current.processed != batches.current.ready:
        return  # in the middle of a batch; Lightning repeats it
    if validate and batches.current.completed == batches.current.ready:
        return  # after the validation; Lightning knows it
    for tracker in (batches.current, batches.total):
        tracker.completed = tracker.processed
    # The loop's own rules for when to validate and what counts as a step. They are not public.
    if not epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
        # Lightning does this between two batches.
        epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
        if not epoch_loop._should_accumulate():
            epoch_loop._batches_that_stepped += 1
    elif validate:
        # As if the process was killed in the first validation batch, so that Lightning runs the whole validation.
        progress = epoch_loop.val_loop.batch_progress
        for tracker in (progress.current, progress.total):
            tracker.reset()
            tracker.ready = tracker.started = 1


def is_within_batch(trainer: Trainer) -> bool:
    """Whether a batch has begun but not finished."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(batches.started > batches.processed)


def optimization(trainer: Trainer) -> Optimization:
    """The state of loops, optimizers, schedulers and the scale of 16-bit gradients."""
    return Optimization(
        loops=copy.deepcopy(trainer.fit_loop.state_dict()),
        optimizers=[copy.deepcopy(trainer.strategy.optimizer_state(o)) for o in trainer.optimizers],
        schedulers=[copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
        precision=copy.deepcopy(trainer.precision_plugin.state_dict()),
    )


def load_optimization(trainer: Trainer, state: Optimization, fresh_optimizer: bool) -> None:
    """Restores the result of :func:`optimization`.

    Args:
        trainer: The Trainer, with new optimizers.
        state: The result of :func:`optimization`. It is not changed.
        fresh_optimizer: Whether to leave out the per-weight state of the optimizers.
    """
    trainer.fit_loop.load_state_dict(copy.deepcopy(state.loops))
    load_optimizers(trainer, state, fresh_optimizer)


def load_optimizers(trainer: Trainer, state: Optimization, fresh_optimizer: bool = False) -> None:
    """Restores the result of :func:`optimization` without the loops; for the arguments see there."""
    for optimizer, values in zip(trainer.optimizers, state.optimizers, strict=True):
        optimizer.load_state_dict(copy.deepcopy({**values, "state": {}} if fresh_optimizer else values))
    for config, values in zip(trainer.lr_scheduler_configs, state.schedulers, strict=True):
        config.scheduler.load_state_dict(copy.deepcopy(values))
    trainer.precision_plugin.load_state_dict(copy.deepcopy(state.precision))


def advance(scheduler: Any, steps: int) -> None:
    """Steps a scheduler that was just made, whose optimizer has not stepped yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of steps without steps of the optimizer
        for _ in range(steps):
            scheduler.step()


def other_options(saved: list[StateDict], present: list[StateDict]) -> str | None:
    """Describes the first difference between optimizers and schedulers at the start of two fits.

    Args:
        saved: Their states before the first step; see :class:`InitialOptimizers`.
        present: Those of another fit.

    Returns:
        The option with both values; ``None`` if all are equal.
    """
    old, new = ([options for state in states for options in _options(state)] for states in (saved, present))
    if len(old) != len(new):
        return f"{len(old)} parameter groups and schedulers became {len(new)}"
    for then, now in zip(old, new, strict=True):
        for key in {**then, **now}:
            if (was := then.get(key, "not there")) != (is_now := now.get(key, "not there")):
                return f"{key} was {was} and is now {is_now}"
    return None


def _options(state: StateDict) -> list[dict[str, str]]:
    """The options in the state of an optimizer, for each of its parameter groups, or of a scheduler."""
    kinds = (bool, int, float, str, list, tuple, type(None), torch.Tensor)
    parts = [{**group, "params": len(group["params"])} for group in state.get("param_groups", [])] or [state]
    return [{key: str(value) for key, value in part.items() if isinstance(value, kinds)} for part in parts]


def set_up_optimizers(trainer: Trainer) -> None:
    """Calls ``configure_optimizers`` again, and frees the state of the optimizers that it replaces."""
    before = trainer.optimizers
    trainer.strategy.setup_optimizers(trainer)
    # At the start of a fit, the strategy then moves their state to its device. Do the same here.
    _optimizers_to_device(trainer.strategy.optimizers, trainer.strategy.root_device)
    in_use = set(map(id, trainer.optimizers))
    for optimizer in before:
        if id(optimizer) not in in_use:
            # An optimizer and its scheduler refer to each other, so that they live until the garbage collection.
            getattr(optimizer, "state", {}).clear()


class InitialOptimizers:
    """Optimizers and schedulers of the first round, in case configure_optimizers returns them again.

    Attributes:
        states: Their states before the first round.

    Args:
        trainer: The Trainer.
        states: The states that another process has saved; by default the present ones.
    """

    def __init__(self, trainer: Trainer, states: list[StateDict] | None = None) -> None:
        self._trainer = trainer
        known = self._parts()
        self.states = [copy.deepcopy(part.state_dict()) for part in known] if states is None else states
        # Only the LightningModule may keep them, since their state takes memory.
        self._known = [weakref.ref(part) for part in known]

    def _parts(self) -> list[Any]:
        return [*self._trainer.optimizers, *(config.scheduler for config in self._trainer.lr_scheduler_configs)]

    def at_point(self, point: FitPoint) -> FitPoint:
        """A point for a round of another length, whose optimizers and schedulers were just made.

        A scheduler that depends on the length, as its state shows, takes as many steps as at the point. The others
        keep their state at the point.
        """
        initial, states = self.states[len(self._trainer.optimizers) :], list(point.optimization.schedulers)
        for number, config in enumerate(self._trainer.lr_scheduler_configs):
            steps = states[number].get("last_epoch")
            if str(config.scheduler.state_dict()) == str(initial[number]) or steps is None:
                continue
            if not config.reduce_on_plateau:  # its steps need metrics
                advance(config.scheduler, steps)
                states[number] = config.scheduler.state_dict()
        return replace(point, optimization=replace(point.optimization, schedulers=states))

    def restore(self) -> None:
        """Restores the initial state of the objects that are still used."""
        in_use = set(map(id, self._parts()))
        for known, state in zip(self._known, self.states, strict=False):
            part = known()
            if part is not None and id(part) in in_use:
                part.load_state_dict(copy.deepcopy(state))

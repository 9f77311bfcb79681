"""Where a training stands: loops, optimizers, schedulers; and how to go on from there."""

import copy
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.progress import _BaseProgress


def reset(loop: _Loop) -> None:
    """Sets the counters of a loop and of those inside it to zero, and clears the marks of a resumed fit."""
    clear_marks(loop)
    for part in vars(loop).values():
        if isinstance(part, _BaseProgress):
            part.reset()
        elif isinstance(part, _Loop):
            reset(part)


def clear_marks(loop: _Loop) -> None:
    """Makes a loop, and those inside it, begin at its counters as if it had not been loaded."""
    marks = ("_restarting", "_loaded_from_state_dict", "_resuming_from_checkpoint", "_has_run", "_skip_backward")
    for name in marks:
        if name in vars(loop):
            setattr(loop, name, False)
    if hasattr(loop, "reset_restart_stage"):  # since 2.5.1
        loop.reset_restart_stage()
    for part in vars(loop).values():
        if isinstance(part, _Loop):
            clear_marks(part)


def settle(trainer: Trainer, validate: bool) -> None:
    """Brings loops that were loaded to one of two places: between epochs, or between batches.

    A checkpoint may be taken in any hook; Lightning's own restart leaves out what came after the hook. The data
    must be loaded.

    Args:
        trainer: The Trainer, its loops loaded and its metrics in place.
        validate: Whether a validation that is due between the batches, and has not been, is to run.
    """
    loop: Any = trainer.fit_loop
    loop.epoch_loop.val_loop._has_run = False  # in a fit that this Trainer has left, before it was told to go on
    epochs = loop.epoch_progress
    for tracker in (epochs.current, epochs.total):
        tracker.ready = tracker.started  # the epoch had not begun: its hooks are called again
    if epochs.current.processed == epochs.current.ready:
        if epochs.current.completed < epochs.current.processed:
            # Epochs are saved before the schedulers that look at metrics step.
            loop.epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
        for tracker in (epochs.current, epochs.total):
            tracker.completed = tracker.processed
        clear_marks(loop)
    else:
        _settle_batch(trainer, validate)


def end_epoch(loop: Any) -> None:
    """Ends a training that was resumed after its last batch, in the middle of an epoch.

    Its limit of steps is reached, or it was told to stop. Lightning would leave out the validation and all the
    hooks that are left.
    """
    epoch_loop, fetcher = loop.epoch_loop, loop._data_fetcher
    loop.reset()
    loop.on_run_start()
    loop.on_advance_start()
    epoch_loop.reset()
    epoch_loop.on_run_start(fetcher)
    if epoch_loop._should_check_val_fx(fetcher):
        validation = epoch_loop.val_loop.batch_progress.current
        epoch_loop._skip_next_val = validation.ready == validation.processed  # it was before the checkpoint
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
            tracker.ready = tracker.started  # the next batch had been fetched only
    if batches.current.processed != batches.current.ready:
        return  # in the middle of a batch, which Lightning repeats
    if validate and batches.current.completed == batches.current.ready:
        return  # after the validation, which it knows
    for tracker in (batches.current, batches.total):
        tracker.completed = tracker.processed
    # The loop's own rules, of when to validate and of what counts as a step; nothing public gives them.
    if not epoch_loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
        # What Lightning does between a batch and the next.
        epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
        if not epoch_loop._should_accumulate():
            epoch_loop._batches_that_stepped += 1
    elif validate:
        # As if killed in the first batch of the validation: Lightning then runs all of it.
        progress = epoch_loop.val_loop.batch_progress
        for tracker in (progress.current, progress.total):
            tracker.reset()
            tracker.ready = tracker.started = 1


def is_within_batch(trainer: Trainer) -> bool:
    """Whether a batch has begun and has not been trained."""
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return bool(batches.started > batches.processed)


def optimization(trainer: Trainer) -> dict[str, Any]:
    """The state of loops, optimizers, schedulers and the scale of 16-bit gradients, as plain values."""
    return {
        "loops": copy.deepcopy(trainer.fit_loop.state_dict()),
        "optimizers": [copy.deepcopy(trainer.strategy.optimizer_state(o)) for o in trainer.optimizers],
        "schedulers": [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
        "precision": copy.deepcopy(trainer.precision_plugin.state_dict()),
    }


def load_optimization(trainer: Trainer, state: dict[str, Any], fresh_optimizer: bool) -> None:
    """Puts back what :func:`optimization` gave.

    Args:
        trainer: The Trainer, with new optimizers.
        state: What was given.
        fresh_optimizer: Whether to leave out what the optimizers remember of each weight.
    """
    state = copy.deepcopy(state)
    trainer.fit_loop.load_state_dict(state["loops"])
    for optimizer, values in zip(trainer.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict({**values, "state": {}} if fresh_optimizer else values)
    for config, values in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
        config.scheduler.load_state_dict(values)
    trainer.precision_plugin.load_state_dict(state["precision"])


class FirstOptimization:
    """Optimizers and schedulers of the first round, in case configure_optimizers gives the same objects again."""

    def __init__(self, trainer: Trainer, states: list[dict[str, Any]] | None = None) -> None:
        self._trainer = trainer
        self._known = self._parts()
        self.states = [copy.deepcopy(part.state_dict()) for part in self._known] if states is None else states

    def _parts(self) -> list[Any]:
        return [*self._trainer.optimizers, *(config.scheduler for config in self._trainer.lr_scheduler_configs)]

    def restore(self) -> None:
        """Brings those that are still used back to their first state."""
        in_use = set(map(id, self._parts()))
        for part, state in zip(self._known, self.states, strict=False):
            if id(part) in in_use:
                part.load_state_dict(copy.deepcopy(state))

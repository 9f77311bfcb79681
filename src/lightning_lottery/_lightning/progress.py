"""How far a round is, how long it can become, and what the progress bar shows."""

import math
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer

from lightning_lottery.attributes import replace_attribute


class Progress:
    """Counts the steps of the round that is training.

    Attributes:
        first_step: The Trainer's ``global_step`` when the round began.
        first_batch: The number of batches that were complete when the round began.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.first_step = self.first_batch = 0

    def start_round(self) -> None:
        """Counts from here on."""
        self.first_step, self.first_batch = self._trainer.global_step, self._batches()

    def continue_round(self, first_step: int, first_batch: int) -> None:
        """Counts from where a resumed round began."""
        self.first_step, self.first_batch = first_step, first_batch

    def steps(self) -> int:
        """The optimizer steps of the round so far, or its batches if Lightning counts no steps."""
        steps = self._trainer.global_step - self.first_step
        # optimizers(use_pl_optimizer=False) bypass Lightning's step counter, but not its batch counter.
        return steps if steps or not self.has_uncounted_steps() else self.batches()

    def batches(self) -> int:
        """The batches of the round so far."""
        return self._batches() - self.first_batch

    def has_uncounted_steps(self) -> bool:
        """Whether the LightningModule seems to step its optimizers without Lightning: batches, but no steps."""
        by_hand = not self._trainer.lightning_module.automatic_optimization
        return by_hand and self._trainer.global_step == 0 and self._batches() > 0

    def _batches(self) -> int:
        """All completed batches, also those before a later rewind point; ``total_batch_idx`` is off by one."""
        return int(self._trainer.fit_loop.epoch_loop.batch_progress.total.completed)

    def has_seen_batches(self) -> bool:
        """Whether the round has seen data, even if no optimizer stepped."""
        return self._batches() > 0

    def is_last_batch_of_epoch(self) -> bool:
        """Whether the batch that has just trained is the last of its epoch."""
        # The loop's own rule, which handles data with and without a length.
        return self._trainer.fit_loop.epoch_loop._num_ready_batches_reached()

    def is_complete(self) -> bool:
        """Whether the round reached the Trainer's limits, and was not stopped before."""
        in_epochs, in_steps = self._reached()
        # An epoch that was stopped in the middle counts as processed.
        return in_steps or (in_epochs and self._trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)

    def nothing_to_train(self) -> bool:
        """Whether this fit will not train a single batch."""
        has_trained = self._trainer.global_step > 0 or self.has_uncounted_steps()
        return self._trainer.limit_train_batches == 0 or (has_trained and any(self._reached()))

    def is_beyond_epoch(self) -> bool:
        """Whether a loaded position is behind the last batch of an epoch, since epochs are shorter now."""
        loop: Any = self._trainer.fit_loop
        is_within = loop.epoch_progress.current.ready > loop.epoch_progress.current.processed
        return bool(is_within and loop.epoch_loop.batch_progress.current.ready >= loop.max_batches)

    def time_is_up(self) -> bool:
        """Whether ``max_time``, the budget of all rounds together, is spent."""
        timers = (callback for callback in self._trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
        return any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)

    def _reached(self) -> tuple[bool, bool]:
        """Whether the training has reached ``max_epochs``, and whether it has reached ``max_steps``."""
        loop: Any = self._trainer.fit_loop
        epochs = loop.epoch_progress.current.processed  # current_epoch is one lower in the last hooks
        in_epochs = loop.max_epochs not in (None, -1) and epochs >= loop.max_epochs
        return bool(in_epochs), bool(loop.max_steps != -1 and self._trainer.global_step >= loop.max_steps)

    def steps_per_round(self) -> float:
        """The optimizer steps of a complete round; infinite if unknown."""
        loop: Any = self._trainer.fit_loop
        most = math.inf if loop.max_steps == -1 else loop.max_steps
        return min(self._most_epochs() * self.steps_per_epoch(), most)

    def epochs_per_round(self) -> float:
        """The epochs of a complete round, of which the last may be a fraction; infinite if unknown."""
        steps, most = self.steps_per_epoch(), self._trainer.fit_loop.max_steps
        epochs = self._most_epochs()
        return epochs if most == -1 or math.isinf(steps) else min(epochs, most / steps)

    def steps_left(self) -> int:
        """The optimizer steps that a complete round would still take; 0 if its length is unknown."""
        left = self.steps_per_round() - self._trainer.global_step
        return 0 if math.isinf(left) else max(0, int(left))

    def _most_epochs(self) -> float:
        epochs = self._trainer.fit_loop.max_epochs
        return math.inf if epochs in (None, -1) else float(epochs)

    def steps_per_epoch(self) -> float:
        """The optimizer steps of one epoch; infinite if unknown."""
        trainer: Any = self._trainer
        varies = any(isinstance(callback, GradientAccumulationScheduler) for callback in trainer.callbacks)
        if varies or not trainer.lightning_module.automatic_optimization:
            return math.inf
        batches: float = trainer.fit_loop.max_batches
        return batches if math.isinf(batches) else math.ceil(batches / trainer.accumulate_grad_batches)


def validation_interval(trainer: Trainer) -> Any:
    """How often the Trainer validates within an epoch: its argument, or the seconds between two validations."""
    seconds = getattr(trainer, "_val_check_time_interval", None)  # since 2.6
    return trainer.val_check_interval if seconds is None else f"{seconds} s"


def show_in_progress_bar(trainer: Trainer, texts: Callable[[], dict[str, str]]) -> Callable[[], None]:
    """Adds texts to the progress bar, if there is one.

    Args:
        trainer: The Trainer.
        texts: Returns the texts by name, whenever the bar is drawn.

    Returns:
        A function that removes the texts.
    """
    bar: Any = trainer.progress_bar_callback
    if bar is None:
        return lambda: None
    get_metrics = bar.get_metrics  # the only way to add text to any progress bar
    return replace_attribute(bar, "get_metrics", lambda *args: {**texts(), **get_metrics(*args)})

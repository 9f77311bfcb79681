"""The Trainer's limits of a round: its own, or shorter ones while optimizers and schedulers are made."""

import math
from typing import Any

from lightning.pytorch import Trainer

from lightning_lottery.storage import ShortRound


class Limits:
    """The limits of the rounds of one fit.

    Args:
        trainer: The Trainer, right before its first round. Other callbacks have set its limits by then.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._epochs, self._steps = trainer.fit_loop.max_epochs, trainer.fit_loop.max_steps
        self._accumulate = trainer.accumulate_grad_batches

    def restore(self) -> None:
        """Restores the limits and the number of batches per step, which other callbacks may have changed."""
        self.restore_length()
        self._trainer.accumulate_grad_batches = self._accumulate

    def restore_length(self) -> None:
        """Restores the numbers of epochs and steps."""
        loop: Any = self._trainer.fit_loop
        loop.max_epochs = self._epochs
        # The fit loop has no setter for it.
        loop.epoch_loop.max_steps = self._steps

    def shorten(self, length: ShortRound, step: int, epochs: int) -> None:
        """Makes a short length the limit, so that schedulers which are made next can follow it.

        If it ends with an epoch, only the number of epochs is limited. Otherwise the number of steps is, too.

        Args:
            length: The length.
            step: ``global_step`` where the round starts.
            epochs: The number of epochs that have begun there.
        """
        loop: Any = self._trainer.fit_loop
        if length.in_epochs:
            loop.max_epochs = epochs + length.amount
            return
        end, per_epoch = step + length.amount, length.steps_per_epoch
        ends_with_epoch = per_epoch is not None and end % per_epoch == 0
        if per_epoch is not None and (ends_with_epoch or self._epochs not in (None, -1)):
            loop.max_epochs = math.ceil(end / per_epoch)
        if not ends_with_epoch:
            loop.epoch_loop.max_steps = end

    def validate_at_end(self) -> None:
        """Lets a round that has just reached its number of steps validate before it ends, in any epoch."""
        loop: Any = self._trainer.fit_loop
        is_last = loop.max_steps != -1 and self._trainer.global_step >= loop.max_steps
        # The rule by which the loop accepts should_stop; min_epochs and min_steps may forbid it.
        if is_last and loop._can_stop_early:
            self._trainer.should_stop = True

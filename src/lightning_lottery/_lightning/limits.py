"""The Trainer's limits of a round: its own, or those of a search round."""

import math
from typing import Any

from lightning.pytorch import Trainer

from lightning_lottery.storage import SearchLength


class Limits:
    """The limits of the rounds of one fit.

    Args:
        trainer: The Trainer, right before its first round. Other callbacks have set its limits by then.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        loop = trainer.fit_loop
        self._epochs, self._steps = loop.max_epochs, loop.max_steps
        self._least_epochs, self._least_steps = loop.min_epochs, loop.min_steps
        self._accumulate = trainer.accumulate_grad_batches
        self._is_search_round = False

    def restore(self) -> None:
        """Restores the limits and the number of batches per step, which other callbacks may have changed."""
        self.restore_length()
        self._trainer.accumulate_grad_batches = self._accumulate

    def restore_length(self) -> None:
        """Restores the numbers of epochs and steps."""
        loop: Any = self._trainer.fit_loop
        loop.max_epochs, loop.min_epochs = self._epochs, self._least_epochs
        # The fit loop has no setters for these.
        loop.epoch_loop.max_steps, loop.epoch_loop.min_steps = self._steps, self._least_steps
        self._is_search_round = False

    def limit_to(self, length: SearchLength, step: int, epochs: int) -> None:
        """Makes the length of a search round the limit, so that schedulers which are made next can follow it.

        The Trainer's own kind of limit is shortened. A length that does not end with an epoch also limits steps.

        Args:
            length: The length.
            step: ``global_step`` where the round starts.
            epochs: The number of epochs that are complete there; needed for a length in epochs.
        """
        loop: Any = self._trainer.fit_loop
        self._is_search_round = True
        if length.in_epochs:
            loop.max_epochs = epochs + length.amount
            return
        end = step + length.amount
        per_epoch = None if self._epochs in (None, -1) else length.steps_per_epoch
        if per_epoch is not None:
            loop.max_epochs = math.ceil(end / per_epoch)
        if per_epoch is None or end % per_epoch or self._steps != -1:
            loop.epoch_loop.max_steps = end

    def validate_at_end(self) -> None:
        """Lets a search round that has just reached its number of steps validate before it ends.

        As always, Lightning validates only in every ``check_val_every_n_epoch``-th epoch.
        """
        loop: Any = self._trainer.fit_loop
        if self._is_search_round and loop.max_steps != -1 and self._trainer.global_step >= loop.max_steps:
            # Otherwise the loop would not accept should_stop, which makes it validate.
            loop.min_epochs = loop.epoch_loop.min_steps = 0
            self._trainer.should_stop = True

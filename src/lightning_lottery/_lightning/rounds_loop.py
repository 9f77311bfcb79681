"""A Trainer whose fit loop trains round after round, from ``setup`` to the end of the fit."""

from collections.abc import Callable

from lightning.pytorch import Callback, Trainer

from lightning_lottery._lightning.checkpoints import RoundCheckpoints
from lightning_lottery._lightning.data_order import DataOrder
from lightning_lottery._lightning.limits import Limits
from lightning_lottery._lightning.loop import Hooks, install
from lightning_lottery._lightning.other_callbacks import other_callbacks
from lightning_lottery._lightning.progress import Progress


class RoundsLoop:
    """Makes the fit loop of a Trainer train rounds, until :meth:`undo`.

    Attributes:
        trainer: The Trainer.
        checkpoints: Its checkpoint callbacks, with a folder per round.
        data: Its data loaders.
        progress: How far the round is.

    Args:
        trainer: The Trainer, in ``setup`` of a fit.
        owner: Our callback. Rounds are trained only while it is among the Trainer's callbacks.
        hooks: The functions to call.
    """

    def __init__(self, trainer: Trainer, owner: Callback, hooks: Hooks) -> None:
        self.trainer = trainer
        self.checkpoints = RoundCheckpoints(trainer)
        self.data = DataOrder(trainer)
        self.progress = Progress(trainer)
        self._owner = owner
        self._restore_epochs: Callable[[], None] = lambda: None
        self._undo = install(trainer, owner, hooks, self.data)

    def undo(self, has_failed: bool = False) -> None:
        """Restores the Trainer. May be called twice.

        Args:
            has_failed: Whether ``on_exception`` of other callbacks will still be called.
        """
        while self._undo:
            self._undo.pop()()
        self.checkpoints.leave_after_exception() if has_failed else self.checkpoints.leave()

    def allow_epochs(self, epochs: int) -> None:
        """Allows Lightning to load a checkpoint of a round that has more epochs than ``max_epochs``."""
        loop = self.trainer.fit_loop
        before = loop.max_epochs
        self._restore_epochs = lambda: setattr(loop, "max_epochs", before)
        loop.max_epochs = max(epochs, before or 0)

    def limits(self) -> Limits:
        """The limits of a round. Call it right before the first round.

        Other callbacks have set them by then: stochastic weight averaging lengthens the fit in ``on_fit_start``.
        The length is restored at the end of the fit.
        """
        self._restore_epochs()
        limits = Limits(self.trainer)
        self._undo.insert(0, limits.restore_length)
        return limits

    def other_callbacks(self) -> list[Callback]:
        """All callbacks of the Trainer except ours."""
        return other_callbacks(self.trainer, self._owner)

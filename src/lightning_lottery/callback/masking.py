"""What the callbacks of this package have in common: the hooks that keep pruned weights at zero."""

from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lightning_lottery.rounds import HeldTicket, Round


class MaskingCallback(Callback):
    """Base class of callbacks that train tickets. A Trainer may have one of them."""

    @property
    @abstractmethod
    def _training(self) -> Round | HeldTicket | None:
        """The ticket that is training; ``None`` before and after."""

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Masks the gradients before anything uses their norm."""
        if (training := self._training) is not None:
            training.masking.mask_gradients()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Masks the gradients after a plain ``loss.backward()``, which calls no hook."""
        if (training := self._training) is not None and not pl_module.automatic_optimization:
            training.masking.mask_gradients()

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int, *_: int) -> None:
        """Prepares to detect weights that are swapped in for the validation."""
        if (training := self._training) is not None and batch_idx == 0:
            training.validation.before_batch()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        """Detects weights that were swapped in."""
        if (training := self._training) is not None and batch_idx == 0:
            training.validation.after_batch()

"""A LightningModule for image classification."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy

from lightning_lottery.plain import check_choice


def _sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


class Classifier(LightningModule):
    """Trains a network with cross-entropy.

    Logs ``train_loss`` every ``log_every_n_steps`` of the Trainer and at the end of each epoch, ``val_loss`` and
    ``val_acc`` in each validation, ``test_loss`` and ``test_acc`` in each test. Accuracies are in [0, 1].

    Args:
        network: Maps images to logits of shape (batch, classes).
        optimizer: Makes an optimizer for given parameters; by default SGD with learning rate 0.1.
        scheduler: Makes a learning-rate scheduler for the optimizer.
        classes: Number of classes.
        interval: How often the scheduler is stepped: once per ``"epoch"`` or once per ``"step"``.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = _sgd,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        classes: int = 10,
        interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._interval = check_choice("interval", interval, ("epoch", "step"))
        self.val_accuracy = MulticlassAccuracy(classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (batch, classes) for images of shape (batch, …)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of a batch of images and labels."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        if self._is_logged(batch_idx):
            self.log("train_loss", loss)
        return loss

    def _is_logged(self, batch_idx: int) -> bool:
        """Whether the loss of this step is logged. Logging every step would cost a fifth of a small step."""
        trainer: Any = self.trainer
        if not all(isinstance(logger, (TensorBoardLogger, CSVLogger)) for logger in trainer.loggers):
            return True  # other loggers may count steps differently
        is_last = batch_idx + 1 == trainer.num_training_batches
        return bool(is_last or (trainer.global_step + 1) % trainer.log_every_n_steps == 0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on held-out images."""
        self._evaluate(batch, "val", self.val_accuracy)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss and accuracy on test images."""
        self._evaluate(batch, "test", self.test_accuracy)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str, accuracy: MulticlassAccuracy) -> None:
        images, labels = batch
        logits = self(images)
        accuracy(logits, labels)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log(f"{stage}_loss", loss, batch_size=len(labels))
        self.log(f"{stage}_acc", accuracy, prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, and the scheduler if given."""
        optimizer = self._optimizer(self.parameters())
        if self._scheduler is None:
            return optimizer
        scheduler: LRSchedulerConfigType = {"scheduler": self._scheduler(optimizer), "interval": self._interval}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

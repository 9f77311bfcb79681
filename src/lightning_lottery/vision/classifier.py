"""A LightningModule for image classification."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics.classification import MulticlassAccuracy


def _sgd(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


class Classifier(LightningModule):
    """Trains a network by cross-entropy.

    Logs ``train_loss`` of a batch every ``log_every_n_steps`` of the Trainer and at the end of an epoch,
    ``val_loss`` and ``val_acc`` a validation, ``test_loss`` and ``test_acc`` a test; accuracies are in [0, 1].

    Args:
        network: Maps images to logits of shape (batch, classes).
        optimizer: Makes an optimizer of parameters; SGD with learning rate 0.1 by default.
        scheduler: Makes a learning-rate scheduler of the optimizer, stepped once an epoch.
        classes: Number of classes.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = _sgd,
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.network = network
        self._optimizer = optimizer
        self._scheduler = scheduler
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
        """Whether anybody looks at the loss of this step: logging each one costs a fifth of a small step."""
        trainer: Any = self.trainer
        if not all(isinstance(logger, (TensorBoardLogger, CSVLogger)) for logger in trainer.loggers):
            return True  # a logger with another axis of steps may take any
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

    def configure_optimizers(self) -> Optimizer | tuple[list[Optimizer], list[LRScheduler]]:
        """The optimizer, and the scheduler if there is one."""
        optimizer = self._optimizer(self.parameters())
        return optimizer if self._scheduler is None else ([optimizer], [self._scheduler(optimizer)])

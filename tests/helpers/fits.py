"""Small models, data and Trainers for fits in tests."""

import importlib
import os
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


def missing(what: str, how: str) -> None:
    """Fails in CI; skips for a user, with a line that says how to get the data."""
    message = f"{what} is not here. {how}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def needs(module: str) -> Any:
    """Imports an optional module."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        missing(module, "Write pip install 'lightning-lottery[test]'.")


class Net(nn.Module):
    """Convolution, batch normalisation and linear layers: parameters and buffers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 5, stride=3)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4 * 8 * 8, 24)
        self.output = nn.Linear(24, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.convolution(images.view(-1, 1, 28, 28))).relu().flatten(1)
        logits: Tensor = self.output(self.hidden(features).relu())
        return logits


class Model(LightningModule):
    """A user's LightningModule, without any code of this package."""

    def __init__(self, network: nn.Module | None = None, optimizer: str = "sgd", scheduler: str = "none") -> None:
        super().__init__()
        self.network = network if network is not None else Net()
        self.optimizer, self.scheduler = optimizer, scheduler

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        loss = nn.functional.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        logits = self.network(images)
        self.log("val_acc", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels))
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), batch_size=len(labels))

    def configure_optimizers(self) -> object:
        optimizer = make_optimizer(self.optimizer, self.parameters())
        if self.scheduler == "step":
            scheduler: object = torch.optim.lr_scheduler.StepLR(optimizer, step_size=5, gamma=0.7)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        if self.scheduler == "cycle":
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=steps)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]
        if self.scheduler == "plateau":
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}
        return optimizer


def two_layers() -> Model:
    """A small network for digits."""
    return Model(nn.Sequential(nn.Linear(784, 30), nn.ReLU(), nn.Linear(30, 10)))


class Uncounted(Model):
    """Steps an optimizer that Lightning does not know, so that it counts no steps."""

    automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers(use_pl_optimizer=False)
        optimizer.zero_grad()  # type: ignore[union-attr]
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()  # type: ignore[union-attr]


def make_optimizer(kind: str, parameters: object) -> torch.optim.Optimizer:
    made: dict[str, object] = {
        "sgd": lambda: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-3),  # type: ignore[arg-type]
        "adam": lambda: torch.optim.Adam(parameters, lr=0.01, weight_decay=1e-3),  # type: ignore[arg-type]
        "adamw": lambda: torch.optim.AdamW(parameters, lr=0.01),  # type: ignore[arg-type]
        "rmsprop": lambda: torch.optim.RMSprop(parameters, lr=0.003, momentum=0.5, centered=True),  # type: ignore[arg-type]
    }
    return made[kind]()  # type: ignore[operator,no-any-return]


class Spy(Callback):
    """Records what another callback sees: starts and ends, with the weights at both."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []
        self.steps: list[int] = []
        self.order: list[list[int]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.events.append("start")
        self.starts.append(copied(pl_module))
        self.order.append([])
        assert trainer.global_step == 0
        assert not trainer.callback_metrics, "metrics of the round before"
        assert trainer.current_epoch == 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        self.order[-1].append(int(batch[0].double().sum() * 1e6))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.events.append("end")
        self.ends.append(copied(pl_module))
        self.steps.append(trainer.global_step)


def copied(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: tensor.detach().clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first
    )


def loaders(digits: tuple[Tensor, Tensor], train: int = 200, **options: object) -> tuple[DataLoader, DataLoader]:  # type: ignore[type-arg]
    images, labels = digits
    options = {"batch_size": 32, "shuffle": True, **options}
    val = TensorDataset(images[-200:], labels[-200:])
    return DataLoader(TensorDataset(images[:train], labels[:train]), **options), DataLoader(val, batch_size=100)  # type: ignore[arg-type]


def in_order(digits: tuple[Tensor, Tensor]) -> tuple[DataLoader, DataLoader]:  # type: ignore[type-arg]
    """Data without random numbers, for fits that Lightning itself resumes bit for bit."""
    images, labels = digits
    data = DataLoader(TensorDataset(images[:200], labels[:200]), 32)
    return data, DataLoader(TensorDataset(images[200:300], labels[200:300]), 100)


def quiet_trainer(**options: object) -> Trainer:
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 2,
    }
    return Trainer(**{**quiet, **options})  # type: ignore[arg-type]


class LateSpy(Spy):
    """Like Spy, for rounds that do not start at step 0."""

    def on_train_start(self, trainer, pl_module):
        self.began = [*getattr(self, "began", []), (trainer.current_epoch, trainer.global_step)]
        self.starts.append({n: t.detach().clone() for n, t in pl_module.state_dict().items()})
        self.order.append([])

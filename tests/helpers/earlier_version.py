"""A small run that uses much of the state of a run, started by an earlier version and resumed by this one.

With the package of that version on the path, ``python -m tests.helpers.earlier_version <folder>`` writes the run
folders and checkpoints, and the outcome of an uninterrupted run. They are in ``tests/callback/data``.
"""

import sys
import tarfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from lightning_lottery import EarlyBird, LotteryTicketCallback, Reinitialize, ShuffleMask

# The round in which a run stops, and the step of that round.
STOPS = {"in a round": (1, 8), "in a control": (3, 6)}


class Model(LightningModule):
    """Dropout, batch normalisation, averaged metrics and a buffer. Rounding errors stay small."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3)
        )
        self.mean = MeanMetric()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.calls += 1
        self.mean(loss)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss * (1 + 0.01 * self.calls)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]


class StopIn(Callback):
    def __init__(self, trained: int, step: int) -> None:
        self.left, self.step = trained, step

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.left -= 1

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.left < 0 and trainer.global_step >= self.step:
            raise ZeroDivisionError


def build(folder: Path, *others: Callback) -> tuple[Trainer, Model, list[Any], LotteryTicketCallback]:
    """Makes Trainer, model, loaders and callback, as in a new process."""
    seed_everything(7, verbose=False)
    points = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    data = TensorDataset(points, points[:, :3].argmax(1))
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.2],
        rewind="4 steps",
        stop=[EarlyBird(window=2, tolerance=0.05)],
        controls=[Reinitialize(), ShuffleMask()],
        control_rounds=[2],
        monitor="val_loss",
        mode="min",
        dirpath=folder / "run",
        verbose=False,
    )
    trainer = Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            lottery,
            EarlyStopping("val_loss", patience=2),
            ModelCheckpoint(folder / "checkpoints", every_n_train_steps=2),
            *others,
        ],
    )
    return (
        trainer,
        Model(),
        [DataLoader(data, batch_size=10, shuffle=True), DataLoader(data, batch_size=60)],
        lottery,
    )


def outcome(folder: Path, model: Model, lottery: LotteryTicketCallback) -> dict[str, Any]:
    """All results: trained weights, tickets, and what the records say."""
    tickets = {
        f"{branch} {number}": {"masks": ticket.masks, "weights": ticket.weights}
        for branch in lottery.records.branches()
        for number, ticket in lottery.tickets[branch].items()
    }
    records = [[r.round, r.branch, r.kept, r.steps, r.best_step, r.best_value, r.metrics] for r in lottery.records]
    return {"weights": model.state_dict(), "tickets": tickets, "records": records}


def write(folder: Path) -> None:
    """Writes the folders of stopped runs, and the outcome of an uninterrupted one."""
    for name, stop in STOPS.items():
        trainer, model, data, _ = build(folder / name, StopIn(*stop))
        try:
            trainer.fit(model, *data)
        except ZeroDivisionError:
            print(name, "stopped")
    trainer, model, data, lottery = build(folder / "whole")
    trainer.fit(model, *data)
    torch.save(outcome(folder / "whole", model, lottery), folder / "outcome.pt")
    with tarfile.open(folder / "earlier_version.tar.xz", "w:xz") as archive:
        for name in (*STOPS, "outcome.pt"):
            archive.add(folder / name, name)


if __name__ == "__main__":
    write(Path(sys.argv[1]))

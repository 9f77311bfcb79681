"""Runs to interrupt, and their expected results: shared by the tests and the kill campaign."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, callbacks, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from lightning_lottery import (
    SNIP,
    Channels,
    CoupledChannels,
    EarlyBird,
    Layerwise,
    LotteryTicketCallback,
    Reinitialize,
    ShuffleMask,
    Taylor,
    Ticket,
)
from lightning_lottery import Stop as StopRule
from tests.helpers.fits import Model, Net, loaders, make_optimizer, quiet_trainer


class Dropout(Net):
    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(images), 0.1, self.training)


class Logging(Model):
    """Averages over epochs, by tensors and by a metric, and a non-persistent buffer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accuracy = MulticlassAccuracy(10)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.calls += 1
        self.log("epoch_loss", loss, on_step=True, on_epoch=True)
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.accuracy(self.network(batch[0]), batch[1])
        self.log("train_acc", self.accuracy, on_step=False, on_epoch=True)
        return loss * (1 + 0.001 * self.calls)


class Late(Model):
    """Logs a metric at the very end of each epoch."""

    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.trainer.current_epoch))


class Manual(Model):
    """Two optimizers, a step every third batch, and gradients that accumulate in between."""

    automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.manual_backward(super().training_step(batch, batch_idx))
        if batch_idx % 3 == 2:
            for optimizer in self.optimizers():
                optimizer.step()
                optimizer.zero_grad()

    def configure_optimizers(self) -> object:
        body = [*self.network.convolution.parameters(), *self.network.hidden.parameters()]
        head = [*self.network.norm.parameters(), *self.network.output.parameters()]
        return [make_optimizer("adam", body), make_optimizer("sgd", head)]


@dataclass(frozen=True)
class AfterOne(StopRule):
    """Ends the search after the first pruning."""

    def after_round(self, records: Sequence[Any], mode: str) -> bool:
        return len(records) > 1


def checkpoints(folder: Path, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder / "checkpoints", save_top_k=-1, filename="{epoch}-{step}", **options)


AVERAGES: dict[str, Any] = {
    "swa": lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2),
    "ema": lambda: callbacks.EMAWeightAveraging(decay=0.9),
}

# Model, and the arguments of model, Trainer, loaders, callback and checkpoints; other callbacks.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "steps": {"checkpoints": {"every_n_train_steps": 1}},
    "workers": {"checkpoints": {"every_n_train_steps": 2}, "loader": {"num_workers": 2}},
    "epochs": {"checkpoints": {}, "model": {"scheduler": "plateau"}},
    "epochs, workers": {"checkpoints": {}, "loader": {"num_workers": 2}, "model": {"scheduler": "step"}},
    "after validation": {"checkpoints": {"save_on_train_epoch_end": False}, "model": {"scheduler": "plateau"}},
    "validation in the epoch": {
        "checkpoints": {"save_on_train_epoch_end": False},
        "trainer": {"val_check_interval": 3},
        "model": {"scheduler": "plateau"},
    },
    "steps, validation in the epoch": {
        "checkpoints": {"every_n_train_steps": 1},
        "trainer": {"val_check_interval": 3},
        "early": 2,
    },
    "early stopping": {
        "checkpoints": {"save_on_train_epoch_end": False},
        "early": 0,
        "trainer": {"max_epochs": 4},
    },
    "early stopping, epochs": {"checkpoints": {}, "early": 0, "trainer": {"max_epochs": 4}},
    "late rewinding": {"checkpoints": {"every_n_train_steps": 2}, "lottery": {"rewind": "10 steps"}},
    "late rewinding to an epoch": {
        "checkpoints": {},
        "lottery": {"rewind": "1 epoch"},
        "model": {"optimizer": "adam"},
    },
    "max_steps": {
        "checkpoints": {"every_n_train_steps": 3},
        "trainer": {"max_epochs": -1, "max_steps": 11},
        "model": {"scheduler": "step"},
    },
    "max_steps, a last validation": {
        "class": Logging,
        "checkpoints": {"every_n_train_steps": 1},
        "trainer": {"max_epochs": -1, "max_steps": 10, "val_check_interval": 5, "check_val_every_n_epoch": None},
    },
    "max_steps, no last validation": {
        "class": Logging,
        "checkpoints": {"every_n_train_steps": 1},
        "trainer": {"max_epochs": -1, "max_steps": 11, "val_check_interval": 4, "check_val_every_n_epoch": None},
    },
    "early stopping within epochs": {
        "class": Logging,
        "checkpoints": {"every_n_train_steps": 1, "save_on_train_epoch_end": False},
        "early": 0,
        "trainer": {"max_epochs": 4, "val_check_interval": 3},
    },
    "max_steps, epochs": {"checkpoints": {}, "trainer": {"max_epochs": -1, "max_steps": 14}},
    "accumulation": {
        "checkpoints": {"every_n_train_steps": 1},
        "trainer": {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5},
        "model": {"optimizer": "adam", "scheduler": "step"},
    },
    "own generator": {"checkpoints": {"every_n_train_steps": 2}, "generator": True},
    "reloading": {
        "checkpoints": {"every_n_train_steps": 2},
        "trainer": {"reload_dataloaders_every_n_epochs": 1},
        "generator": True,
    },
    "metrics": {"class": Logging, "checkpoints": {"every_n_train_steps": 1}},
    "metrics after validation": {"class": Logging, "checkpoints": {"save_on_train_epoch_end": False}},
    "monitored while training": {"class": Logging, "checkpoints": {}, "lottery": {"monitor": "train_acc"}},
    "monitored at the end of epochs": {"class": Late, "checkpoints": {}, "lottery": {"monitor": "late"}},
    "manual optimization": {"class": Manual, "checkpoints": {"every_n_train_steps": 1}},
    "learning-rate rewinding": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"rewind": "lr"},
        "model": {"scheduler": "step"},
    },
    "fine-tuning": {"checkpoints": {"every_n_train_steps": 3}, "lottery": {"rewind": "tune"}},
    "long fine-tuning": {
        "checkpoints": {"every_n_train_steps": 4},
        "lottery": {"rewind": "long"},
        "class": Logging,
    },
    "late rewinding by a percentage": {"checkpoints": {"every_n_train_steps": 5}, "lottery": {"rewind": "30%"}},
    "late rewinding, early stopping": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"rewind": "9 steps"},
        "early": 2,
    },
    "late rewinding in another data order": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"rewind": "9 steps", "same_data_order": False},
    },
    "best of all": {"checkpoints": {"monitor": "val_loss", "save_top_k": 1, "save_last": True}},
    "persistent workers": {
        "checkpoints": {"every_n_train_steps": 3},
        "loader": {"num_workers": 1, "persistent_workers": True},
    },
    "bf16": {"checkpoints": {"every_n_train_steps": 3}, "trainer": {"precision": "bf16-mixed"}},
    "double precision": {"checkpoints": {"every_n_train_steps": 3}, "trainer": {"precision": "64-true"}},
    "stochastic weight averaging": {"checkpoints": {}, "average": "swa", "trainer": {"max_epochs": 4}},
    **(
        {"exponential moving average": {"checkpoints": {"every_n_train_steps": 3}, "average": "ema"}}
        if hasattr(callbacks, "EMAWeightAveraging")
        else {}
    ),
    "other data order": {"checkpoints": {"every_n_train_steps": 3}, "lottery": {"same_data_order": False}},
    "batches are scored": {
        "class": Logging,
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"criterion": SNIP(batches=2)},
    },
    "batches are scored, own generator, other data order": {
        "class": Logging,
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"criterion": Taylor(batches=2), "same_data_order": False},
        "generator": True,
    },
    "pruned at initialisation": {
        "checkpoints": {"every_n_train_steps": 2},
        "lottery": {"criterion": SNIP(), "prune_at_init": True},
    },
    "early bird": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"stop": [EarlyBird(window=2, tolerance=0.2)]},
        "trainer": {"max_epochs": 4},
    },
    "early bird, epochs, batches are scored": {
        "checkpoints": {},
        "lottery": {"stop": [EarlyBird(window=2, tolerance=0.3)], "criterion": SNIP()},
        "trainer": {"max_epochs": 4},
    },
    "rounds that end": {"checkpoints": {"every_n_train_steps": 2}, "lottery": {"stop": [AfterOne()]}},
    "channels": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"pattern": Channels(), "scope": Layerwise(), "controls": [Reinitialize()]},
    },
    "coupled channels": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"pattern": CoupledChannels(), "controls": [Reinitialize()], "rewind": "5 steps"},
    },
    "search rounds": {
        **{"checkpoints": {"every_n_train_steps": 1}, "model": {"scheduler": "cycle"}, "early": 9},
        "lottery": {"search": "5 steps", "full_rounds": "all"},
    },
    "search rounds after late rewinding": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"search": "60%", "rewind": "9 steps", "full_rounds": "all"},
        "model": {"scheduler": "cycle"},
        "trainer": {"max_epochs": 4},
    },
    "search rounds, trained weights": {
        "checkpoints": {"every_n_train_steps": 3},
        "lottery": {"search": "2 epochs", "rewind": "lr", "full_rounds": "all", "stop": [EarlyBird(2, 0.3)]},
        "trainer": {"max_epochs": 4},
    },
    "no sanity check": {"checkpoints": {"every_n_train_steps": 2}, "trainer": {"num_sanity_val_steps": 0}},
}


def build(
    folder: Path, name: str, digits: tuple[Tensor, Tensor], *others: Callback, seed: int = 3
) -> tuple[Any, ...]:
    """Makes Trainer, model, loaders and callback of a configuration, as in a new process."""
    from lightning_lottery import FineTune, LearningRate

    case = CONFIGURATIONS[name]
    seed_everything(seed, verbose=False)
    model = case.get("class", Model)(Dropout(), **case.get("model", {}))
    generator = torch.Generator().manual_seed(5) if case.get("generator") else None
    data = loaders(digits, generator=generator, **case.get("loader", {}))
    options = dict(case.get("lottery", {}))
    rules = {"lr": LearningRate(to="5 steps"), "tune": FineTune(1, 0.02), "long": FineTune(3, 0.02)}
    options["rewind"] = rules.get(options.get("rewind"), options.get("rewind", "init"))
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.2],
        control_rounds=[2],
        mode="max",
        dirpath=folder / "run",
        verbose=False,
        **{"monitor": "val_acc", "controls": [Reinitialize(), ShuffleMask()], **options},
    )
    used = [lottery, *others]
    saving = {"save_top_k": -1, "filename": "{epoch}-{step}", **case["checkpoints"]}
    if (patience := case.get("early")) is not None:
        used.append(EarlyStopping("val_loss", patience=patience))
    if case.get("average"):
        used.append(AVERAGES[case["average"]]())
    used.append(ModelCheckpoint(folder / "checkpoints", **saving))
    trainer = quiet_trainer(callbacks=used, enable_checkpointing=True, **case.get("trainer", {}))
    return trainer, model, data, lottery


def outcome(folder: Path, model: LightningModule) -> dict[str, str]:
    """Hashes of all results of a run, except durations."""
    found = {}
    for path in sorted((folder / "run").rglob("*.safetensors")):
        ticket = Ticket.load(path)
        for kind, tensors in (("mask", ticket.masks), ("weight", ticket.weights)):
            for name in sorted(tensors):
                found[f"{path.name} {kind} {name}"] = _digest(tensors[name])
    lines = [json.loads(line) for line in (folder / "run" / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("seconds")
        found[f"record {line['branch']} {line['round']}"] = json.dumps(line, sort_keys=True)
    for name, tensor in model.state_dict().items():
        found[name] = _digest(tensor)
    if (figure := folder / "run" / "report.png").exists():
        found["figure"] = hashlib.sha256(figure.read_bytes()).hexdigest()
    return found


def _digest(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().numpy().tobytes()).hexdigest()


class Stop(Callback):
    """Raises an error some batches after a number of rounds."""

    def __init__(self, rounds: int, batches: int = 0) -> None:
        self.rounds, self.batches = rounds, batches

    def on_train_start(self, trainer, pl_module):
        self.rounds -= 1

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.rounds < 0 and trainer.global_step >= self.batches:
            raise ZeroDivisionError


def interrupted(digits, folder):
    """A run that stopped in round 1, and its newest checkpoint."""
    trainer, model, data, _ = build(folder, "steps", digits, Stop(1, 5))
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *data)
    trainer, _, _, lottery = build(folder, "steps", digits)
    path = lottery.resume(trainer)
    assert path.endswith("round_01/epoch=0-step=5.ckpt")
    return path


class Snapshots(Callback):
    """Copies the whole folder right after every checkpoint, as if the run was killed then."""

    def __init__(self, folder: Path, copies: Path) -> None:
        self.folder, self.copies, self.taken = folder, copies, []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        save = trainer.save_checkpoint

        def save_checkpoint(path: Any, *args: Any, **kwargs: Any) -> None:
            save(path, *args, **kwargs)
            copy = self.copies / str(len(self.taken))
            shutil.copytree(self.folder, copy, symlinks=True)
            self.taken.append((copy, copy / Path(path).relative_to(self.folder)))

        trainer.save_checkpoint = save_checkpoint

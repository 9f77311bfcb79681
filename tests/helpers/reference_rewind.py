"""Late rewinding, learning-rate rewinding and fine-tuning in plain PyTorch, from the papers.

Without Lightning and without this package. A training is a list of steps; a point is the state after one of them.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from tests.helpers.fits import make_optimizer
from tests.helpers.reference import prune

PRUNABLE = ["convolution.weight", "hidden.weight", "output.weight"]  # of tests.helpers.fits.Net
EPOCHS = 3


@dataclass
class Point:
    """The complete state after a number of steps."""

    epoch: int = 0
    batch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, object] | None = None
    scheduler: dict[str, object] | None = None
    generator_at_epoch: Tensor | None = None
    generator: Tensor | None = None


@dataclass
class Experiment:
    network: nn.Module
    prunable: list[str]
    train_loader: DataLoader  # type: ignore[type-arg]
    val_loader: DataLoader  # type: ignore[type-arg]
    make_optimizer: Callable[[nn.Module], Optimizer]
    make_scheduler: Callable[[Optimizer], object] | None
    epochs: int
    seed: int

    def load_schedule(self, scheduler, start: Point) -> None:
        scheduler.load_state_dict(copy.deepcopy(start.scheduler))

    def train(
        self,
        masks,
        start: Point,
        fresh_optimizer=False,
        epochs=None,
        lr=None,
        note_step=None,
        note_epoch=None,
        last_step=None,
    ):
        """Trains from a point to the end, or to a step. Returns the point to save on the way."""
        network, noted = self.network, None
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name][~mask] = 0.0
        optimizer = self.make_optimizer(network)
        scheduler = self.make_scheduler(optimizer) if self.make_scheduler is not None and lr is None else None
        if start.optimizer is not None:
            state = copy.deepcopy(start.optimizer)
            optimizer.load_state_dict({**state, "state": {}} if fresh_optimizer else state)
            for name, mask in masks.items():
                for value in optimizer.state[parameters[name]].values():
                    if isinstance(value, Tensor) and value.shape == mask.shape:
                        value[~mask] = 0.0
            if scheduler is not None:
                self.load_schedule(scheduler, start)
        if lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr
        if start.generator is None:
            torch.manual_seed(self.seed)
        steps = start.epoch * len(self.train_loader) + start.batch

        def note(epoch, batch, at_epoch):
            return Point(
                epoch,
                batch,
                copy.deepcopy(network.state_dict()),
                copy.deepcopy(optimizer.state_dict()),
                copy.deepcopy(scheduler.state_dict()) if scheduler is not None else None,
                at_epoch,
                torch.get_rng_state(),
            )

        for epoch in range(start.epoch, epochs or self.epochs):
            skip = start.batch if epoch == start.epoch else 0
            if epoch == start.epoch and start.generator is not None:
                torch.set_rng_state(start.generator_at_epoch if skip else start.generator)
            if note_epoch == epoch and noted is None:
                noted = note(epoch, 0, None)
            at_epoch = torch.get_rng_state()
            batches = list(self.train_loader)[skip:] if skip else self.train_loader
            if skip:
                torch.set_rng_state(start.generator)
            network.train()
            for number, (images, labels) in enumerate(batches, start=skip + 1):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images), labels).backward()
                for name, mask in masks.items():
                    parameters[name].grad[~mask] = 0.0
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
                steps += 1
                if steps == note_step and number < len(self.train_loader):
                    noted = note(epoch, number, at_epoch)
                if steps == last_step:
                    return noted
            network.eval()
            with torch.no_grad():
                for images, _ in self.val_loader:
                    network(images)
            if steps == note_step and noted is None:
                noted = note(epoch + 1, 0, None)
        return noted

    def run(
        self, amount, rounds, step=None, epoch=None, keep_weights=False, fresh_optimizer=False, fine_tune=None
    ):
        """Masks, starting weights and trained weights of every round. ``amount``: of all rounds, or a list."""
        network = self.network
        initial = Point(weights=copy.deepcopy(network.state_dict()))
        masks = {name: torch.ones_like(initial.weights[name], dtype=torch.bool) for name in self.prunable}
        done, start = [], copy.deepcopy(initial.weights)
        point = self.train(masks, initial, note_step=step, note_epoch=epoch) or initial
        done.append((masks, start, copy.deepcopy(network.state_dict())))
        for share in amount if isinstance(amount, list) else [amount] * rounds:
            weights = network.state_dict()
            survivors = sum(int(mask.sum()) for mask in masks.values())
            masks = prune(weights, masks, round(share * survivors))
            if not keep_weights:
                network.load_state_dict(copy.deepcopy(point.weights))
            start = copy.deepcopy(network.state_dict())
            for name, mask in masks.items():
                start[name][~mask] = 0.0
            epochs, lr = fine_tune or (None, None)
            self.train(masks, point, fresh_optimizer, epochs, lr)
            done.append((masks, start, copy.deepcopy(network.state_dict())))
        return done


def experiment(network, train, val, optimizer, scheduler):
    """The same training as of ``Model(network, optimizer, scheduler)`` in ``EPOCHS`` epochs with seed 11."""
    return Experiment(
        copy.deepcopy(network),
        PRUNABLE,
        train,
        val,
        lambda module: make_optimizer(optimizer, module.parameters()),
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.7)) if scheduler == "step" else None,
        epochs=EPOCHS,
        seed=11,
    )

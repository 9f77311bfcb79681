"""Iterative magnitude pruning in plain PyTorch, from the paper, without Lightning and without this package.

Slow and obvious on purpose: sorts (magnitude, tensor, position) triples in Python, and masks manually.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader


@dataclass
class Round:
    """The result of one round."""

    masks: dict[str, Tensor]
    start: dict[str, Tensor]
    end: dict[str, Tensor]
    val_accuracy: float


def prune(weights: dict[str, Tensor], masks: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """Removes the ``count`` smallest survivors by sorting all of them."""
    triples = [
        (abs(value), tensor, position)
        for tensor, name in enumerate(masks)
        for position, (value, alive) in enumerate(
            zip(weights[name].flatten().tolist(), masks[name].flatten().tolist(), strict=True)
        )
        if alive
    ]
    flat = {name: mask.flatten().clone() for name, mask in masks.items()}
    names = list(masks)
    for _, tensor, position in sorted(triples)[:count]:
        flat[names[tensor]][position] = False
    return {name: flat[name].view(masks[name].shape) for name in names}


def iterative_magnitude_pruning(
    network: nn.Module,
    prunable: list[str],
    train_loader: DataLoader,  # type: ignore[type-arg]
    val_loader: DataLoader,  # type: ignore[type-arg]
    make_optimizer: Callable[[nn.Module], Optimizer],
    make_scheduler: Callable[[Optimizer], object] | None,
    amount: float,
    rounds: int,
    epochs: int,
    seed: int,
) -> list[Round]:
    """Trains, prunes, rewinds to initialisation; every round uses the same random numbers."""
    initial = copy.deepcopy(network.state_dict())
    masks = {name: torch.ones_like(initial[name], dtype=torch.bool) for name in prunable}
    done = []
    for _ in range(rounds + 1):
        network.load_state_dict(copy.deepcopy(initial))
        parameters = dict(network.named_parameters())
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name][~mask] = 0.0
        start = copy.deepcopy(network.state_dict())
        torch.manual_seed(seed)
        optimizer = make_optimizer(network)
        scheduler = make_scheduler(optimizer) if make_scheduler is not None else None
        accuracy = 0.0
        for _ in range(epochs):
            network.train()
            for images, labels in train_loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images), labels).backward()
                for name, mask in masks.items():
                    parameters[name].grad[~mask] = 0.0  # type: ignore[index]
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()  # type: ignore[attr-defined]
                with torch.no_grad():
                    for name, mask in masks.items():
                        parameters[name][~mask] = 0.0
            network.eval()
            right = total = 0
            with torch.no_grad():
                for images, labels in val_loader:
                    right += int((network(images).argmax(1) == labels).sum())
                    total += len(labels)
            accuracy = right / total
        done.append(Round(masks, start, copy.deepcopy(network.state_dict()), accuracy))
        survivors = sum(int(mask.sum()) for mask in masks.values())
        masks = prune(network.state_dict(), masks, round(amount * survivors))
    return done

"""Copies of trained weights inside a network: averages, momentum teachers, target networks."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lightning_lottery.sharding import is_sharded
from lightning_lottery.ticket import Ticket


def copies_of(module: nn.Module, held: Collection[int] | None = None) -> dict[str, str]:
    """Finds parameters that are copies of trained ones, and follow them.

    Those are what an ``AveragedModel`` holds, and parts of a network that no optimizer trains and whose matrices
    have the values of trained ones, as the target network of BYOL has (Grill et al. 2020, arXiv:2006.07733).

    Args:
        module: Any network, before training.
        held: The ``id`` of all parameters that optimizers hold; if left out, those that ``requires_grad``.

    Returns:
        The names of the originals by the names of the copies, for all parameters of a copied part.
    """
    parameters = dict(module.named_parameters())
    if any(map(is_sharded, parameters.values())):
        return {}
    trained = {n: p for n, p in parameters.items() if p.requires_grad and (held is None or id(p) in held)}
    averages = [f"{path}.module." for path, layer in module.named_modules() if isinstance(layer, AveragedModel)]
    for prefix in averages:  # it does not freeze what it holds
        trained = {n: p for n, p in trained.items() if not n.startswith(prefix) or (held and id(p) in held)}
    others = {name: p for name, p in parameters.items() if name not in trained}
    parts = dict(_parts(others, trained, averages))
    return {
        name: original
        for name, parameter in others.items()
        for part, source in parts.items()
        if name.startswith(part)
        and (original := source + name.removeprefix(part)) in trained
        and trained[original].shape == parameter.shape
    }


def _parts(
    others: Mapping[str, nn.Parameter], trained: Mapping[str, nn.Parameter], averages: list[str]
) -> Iterator[tuple[str, str]]:
    """The beginnings of the names of copies, each with that of the originals."""
    by_shape: dict[tuple[torch.Size, str], list[str]] = {}
    for name, parameter in trained.items():
        by_shape.setdefault((parameter.shape, name.rpartition(".")[-1]), []).append(name)
    for name, parameter in others.items():
        is_average = any(map(name.startswith, averages))
        if parameter.dim() < 2 or not (is_average or _varies(parameter)):
            continue  # equal biases, gains and zeros say nothing
        alike = [
            original
            for original in by_shape.get((parameter.shape, name.rpartition(".")[-1]), [])
            if is_average or _are_equal(parameter, trained[original])
        ]
        if alike:
            original = max(alike, key=lambda candidate: _common(name, candidate))
            length = _common(name, original)
            yield _beginning(name, length), _beginning(original, length)


def _are_equal(first: Tensor, second: Tensor) -> bool:
    return first.device == second.device and first.dtype == second.dtype and torch.equal(first, second)


def _varies(parameter: nn.Parameter) -> bool:
    return parameter.numel() > 1 and not bool(parameter.eq(parameter.flatten()[0]).all())


def _common(name: str, other: str) -> int:
    """How many parts of two names are the same, from the end."""
    pairs = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(name.count("."), other.count(".")) + 1)


def _beginning(name: str, length: int) -> str:
    parts = name.split(".")[:-length]
    return ".".join(parts) + "." if parts else ""


def follow(ticket: Ticket, dense: Ticket, copies: Mapping[str, str]) -> Ticket:
    """Lets copies begin a round as their originals do.

    Args:
        ticket: The ticket of the round.
        dense: The ticket whose weights it returns to.
        copies: What :func:`copies_of` gave.

    Returns:
        The ticket in which a copy has the values of its original, if it has them in ``dense`` too; else it keeps
        its own, and zeros where its original is pruned. An average of both then stays zero there.
    """
    weights = dict(ticket.weights)
    for name, original in copies.items():
        if _are_equal(dense.weights[name], dense.weights[original]):
            weights[name] = ticket.weights[original].clone()
        elif original in ticket.masks:
            weights[name] = weights[name].masked_fill(~ticket.masks[original], 0)
    return replace(ticket, weights=weights)

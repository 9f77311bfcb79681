"""Finds copies of trained weights inside a network: averages, momentum teachers, target networks.

A copy is recognised by its behaviour: its values change although it has never had a gradient.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lightning_lottery.masks import is_sharded


class GradientWatch:
    """Tracks which parameters of a network have had a gradient so far.

    Args:
        module: Any network.
        known: For a resumed round, the parameters that had no gradient before; all by default.
    """

    def __init__(self, module: nn.Module, known: Collection[str] | None = None) -> None:
        parameters = dict(module.named_parameters())
        self.is_supported = not any(map(is_sharded, parameters.values()))
        self._without = {
            n: p for n, p in parameters.items() if self.is_supported and (known is None or n in known)
        }
        self._undo: dict[str, Callable[[], None]] = {}

    def update(self) -> None:
        """Updates the list. Call it after a backward pass and where parameters may have been unfrozen."""
        for name, parameter in list(self._without.items()):
            if parameter.grad is not None:
                self._remove(name)
            elif parameter.requires_grad and name not in self._undo:
                # Gradients may be gone when a batch ends, and manual optimization may bypass Lightning's hooks.
                register: Callable[..., Any] = parameter.register_post_accumulate_grad_hook
                self._undo[name] = register(lambda _, name=name: self._remove(name)).remove

    def _remove(self, name: str) -> None:
        self._without.pop(name, None)
        if (remove := self._undo.pop(name, None)) is not None:
            remove()

    @property
    def without(self) -> list[str]:
        """The names of the parameters that have had no gradient."""
        return list(self._without)

    def release(self) -> None:
        """Removes the hooks. May be called twice."""
        while self._undo:
            self._undo.popitem()[1]()


def averages_of(module: nn.Module) -> dict[str, str | None]:
    """Finds the parameters inside PyTorch's ``AveragedModel``.

    Args:
        module: Any network, before training.

    Returns:
        For each copy the name of its original, or ``None`` if it is unknown.
    """
    parameters = dict(module.named_parameters())
    parts = [f"{path}.module." for path, layer in module.named_modules() if isinstance(layer, AveragedModel)]
    copies = {name for name in parameters if any(map(name.startswith, parts))}
    if not copies or any(map(is_sharded, parameters.values())):
        return dict.fromkeys(copies)
    return originals_of(copies, parameters, parameters, must_equal=False)


def find_copies(names: Collection[str], module: nn.Module, start: Mapping[str, Tensor]) -> dict[str, str | None]:
    """Finds the copies of trained weights, after an epoch of the first round.

    Args:
        names: The parameters that have had no gradient.
        module: The network.
        start: The values of all parameters and persistent buffers before training.

    Returns:
        For each parameter that has changed without a gradient, and for each changed buffer that was equal to a
        trained weight, the name of the original, or ``None`` if it is unknown.
    """
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    present, known = (parameters | buffers).items(), set(start)
    now = {n: t.detach() for n, t in present if n in known and t.layout == torch.strided}
    before = _Before(start, now)
    untrained = now.keys() & (buffers.keys() | set(names))
    moved = {name for name in untrained if not are_equal(now[name], before[name])}
    trained = [name for name in parameters if name in now and name not in names]
    averages = _by_value(buffers.keys() & moved, before, now, trained)
    return originals_of(moved.intersection(names), before, now, trained) | averages


class _Before(dict[str, Tensor]):
    """Starting values beside the present ones. They are read from ``start`` when they are needed."""

    def __init__(self, start: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._start, self._now = start, now

    def __missing__(self, name: str) -> Tensor:
        self[name] = _beside(self._start[name], self._now[name])
        return self[name]


def originals_of(
    copies: Collection[str],
    before: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    trained: Collection[str] | None = None,
    must_equal: bool = True,
) -> dict[str, str | None]:
    """Finds the originals of copied parameters.

    Args:
        copies: Names of the copied parameters.
        before: The values of all parameters before training, by name.
        now: Their current values.
        trained: The names of possible originals; by default all other parameters.
        must_equal: Whether a matrix and its original must have been equal before training. Otherwise equal ones
            are preferred; without one, the matrix of the same shape whose name shares the longest ending with the
            copy is accepted, if it is the only one.

    Returns:
        For each copy the name of its original, or ``None`` if it is unknown.
    """
    possible = [name for name in (before if trained is None else trained) if name not in copies]
    matrices = [name for name in copies if _varies(before[name])]
    votes: dict[tuple[str, str], list[float]] = {}
    for name in matrices:
        for original in _candidates(name, possible, before, must_equal):
            votes.setdefault(_parts(name, original), []).append(_distance(now[name], now[original]))
    found: dict[str, str | None] = dict.fromkeys(copies)
    # The original of a part is the part that matches most of its matrices; of several, the one with the nearest
    # current values.
    for (part, source), _ in sorted(votes.items(), key=lambda item: (-len(item[1]), sum(item[1]))):
        for name in copies:
            original = source + name.removeprefix(part)
            is_fit = name.startswith(part) and original in possible and now[original].shape == now[name].shape
            if found[name] is None and is_fit:
                found[name] = original
    return found


def _candidates(name: str, possible: list[str], before: Mapping[str, Tensor], must_equal: bool) -> list[str]:
    end, shape = name.rpartition(".")[-1], before[name].shape
    alike = [n for n in possible if n.rpartition(".")[-1] == end and before[n].shape == shape]
    equal = [n for n in alike if are_equal(before[name], before[n])]
    if equal or must_equal:
        return equal
    longest = max((_common(name, n) for n in alike), default=0)
    nearest = [n for n in alike if _common(name, n) == longest]
    return nearest if len(nearest) == 1 else []


def _by_value(
    buffers: Collection[str],
    before: Mapping[str, Tensor],
    now: Mapping[str, Tensor],
    trained: list[str],
) -> dict[str, str | None]:
    """For each buffer, the parameter that it was equal to; among several, the nearest one now."""
    found: dict[str, str | None] = {}
    for name in buffers:
        value = before[name]
        if value.is_floating_point() and _varies(value):
            equal = [n for n in trained if before[n].shape == value.shape and are_equal(before[n], value)]
            if equal:
                distances = {original: _distance(now[name], now[original]) for original in equal}
                found[name] = min(equal, key=distances.__getitem__)
    return found


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first.detach() - _beside(second.detach(), first)).double().norm())


def are_equal(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same values, type and device."""
    return first.device == second.device and first.dtype == second.dtype and torch.equal(first, second)


def _beside(value: Tensor, other: Tensor) -> Tensor:
    return value.to(other.device)


def _varies(values: Tensor) -> bool:
    """Whether the values of a tensor identify it. Vectors and constant values do not."""
    return values.dim() > 1 and values.numel() > 1 and not bool(values.eq(values.flatten()[0]).all())


def _common(name: str, other: str) -> int:
    """The number of parts that two names share, counted from the end."""
    pairs = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(name.count("."), other.count(".")) + 1)


def _parts(name: str, original: str) -> tuple[str, str]:
    """The beginnings of two names, without their common ending."""
    length = _common(name, original)
    first, second = (".".join(n.split(".")[:-length]) for n in (name, original))
    return f"{first}." if first else "", f"{second}." if second else ""

"""Calls of a network that show whether another network has the same outputs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_lottery.channels.example import outputs_of, with_noise
from lightning_lottery.channels.removal import copy_of
from lightning_lottery.errors import ConfigurationError

# Larger outputs that agree are fillers, such as masked logits, or counters, and say nothing about the scale.
_FILLER = 1e4


@dataclass(frozen=True)
class Trial:
    """Inputs on which networks are compared, in the highest precision in which they run.

    In double precision, rounding is so small that it neither hides nor imitates a difference.

    Attributes:
        precision: ``torch.float64``; or ``torch.float32`` if the network does not run in double precision; or
            ``None`` if it only runs in its own.
        examples: What the networks are called with: the example, and the example with noise in its floating-point
            tensors, so that no accident of the example, such as zeros, hides a difference.
    """

    precision: torch.dtype | None
    examples: Sequence[Any]

    @classmethod
    def of(cls, module: nn.Module, example: Any) -> "Trial":
        """Finds out how a network can be called.

        Args:
            module: The network.
            example: What it is called with, on its device.

        Raises:
            ConfigurationError: The network fails on the example.
        """
        for precision in (torch.float64, torch.float32):
            try:
                return cls._in(precision, module, example)
            except (ConfigurationError, TypeError):  # some devices have no double precision
                continue
        return cls._in(None, module, example)

    @classmethod
    def _in(cls, precision: torch.dtype | None, module: nn.Module, example: Any) -> "Trial":
        trial = cls(precision, [_converted(example, precision)])
        trial.outputs(network := trial.network(module))
        noisy = cls(precision, [*trial.examples, with_noise(trial.examples[0])])
        try:
            noisy.outputs(network)
        except ConfigurationError:  # the network accepts only certain inputs
            return trial
        return noisy

    @property
    def is_double(self) -> bool:
        """Whether networks are compared in double precision."""
        return self.precision == torch.float64

    def network(self, module: nn.Module) -> nn.Module:
        """A copy of a network in this precision."""
        copied = copy_of(module)
        if self.precision is None:
            return copied
        return copied.double() if self.is_double else copied.float()

    def outputs(self, network: nn.Module) -> list[Tensor]:
        """The outputs of a network in this precision, for all examples.

        Raises:
            ConfigurationError: A call fails, or returns no tensor.
        """
        return [tensor for example in self.examples for tensor in outputs_of(network, example)]


def _converted(example: Any, precision: torch.dtype | None) -> Any:
    def converted(leaf: Any) -> Any:
        return leaf.to(precision) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return example if precision is None else tree_map(converted, example)


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference between outputs, relative to the largest number in the same tensor.

    Numbers of at least 10,000 that are equal do not count for the scale, as they are often fillers.

    Args:
        ours: Outputs.
        theirs: The outputs to compare them with.

    Returns:
        The difference; infinite if shapes differ, or if a number is NaN or infinite in only one of them.
    """
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return math.inf
    return max((_difference(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _difference(ours: Tensor, theirs: Tensor) -> float:
    ours, theirs = _real(ours), _real(theirs)
    # Outputs may be infinite on purpose, as masked logits are.
    differs = ~((ours == theirs) | (ours.isnan() & theirs.isnan()))
    gaps = (ours - theirs)[differs].abs()
    if not gaps.numel():
        return 0.0
    if not bool(gaps.isfinite().all()):
        return math.inf
    sizes = theirs.abs()
    scale = float(sizes[differs | (sizes < _FILLER)].max())
    return float(gaps.max()) / (scale or 1.0)


def _real(tensor: Tensor) -> Tensor:
    """The values in double precision on the CPU; the parts of complex numbers as separate numbers."""
    return (torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor).cpu().double()

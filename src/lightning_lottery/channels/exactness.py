"""Whether the removal of channels leaves the outputs of a network as they are."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_lottery.channels.example import outputs_of
from lightning_lottery.channels.groups import Group, Member, along
from lightning_lottery.channels.removal import copy_of, remove
from lightning_lottery.errors import ConfigurationError

# Removing zeros only changes the order of sums, which costs a few units in the last place of single precision.
_TOLERANCE = 1e-4


def largest_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """The largest difference between outputs, relative to the largest finite output.

    Args:
        ours: Outputs.
        theirs: The outputs to compare them with.

    Returns:
        The difference; infinite if shapes differ, or if there is NaN.
    """
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in theirs]:
        return math.inf
    pairs = [(a.double(), b.double()) for a, b in zip(ours, theirs, strict=True) if b.numel()]
    scale = max((float(b.masked_fill(~b.isfinite(), 0).abs().max()) for _, b in pairs), default=0.0)
    # Outputs may be infinite on purpose, as masked logits are.
    differences = [float((a - b).masked_fill(a == b, 0).abs().max()) for a, b in pairs]
    if any(map(math.isnan, differences)):
        return math.inf
    largest = max(differences, default=0.0)
    return largest / scale if scale else largest


def exact_groups(module: nn.Module, example: Any, groups: Sequence[Group]) -> list[Group]:
    """The groups of which channels can be removed without a change of the outputs, found by trying it.

    Half of the channels are set to zero and then removed, in a copy with random weights, biases and statistics,
    so that no accident of the present values hides a difference.

    Args:
        module: The network, in single precision.
        example: What it is called with.
        groups: The groups to try.
    """
    return _passing(module, example, [], list(groups))


def _passing(module: nn.Module, example: Any, kept: list[Group], tried: list[Group]) -> list[Group]:
    """The groups among those tried that pass together with those that are kept, by bisection."""
    if not tried or _is_exact(module, example, [*kept, *tried]):
        return tried
    if len(tried) == 1:
        return []
    middle = len(tried) // 2
    first = _passing(module, example, kept, tried[:middle])
    return first + _passing(module, example, [*kept, *first], tried[middle:])


def _is_exact(module: nn.Module, example: Any, groups: Sequence[Group]) -> bool:
    generator = torch.Generator().manual_seed(0)
    masked = copy_of(module)
    _randomise(masked, generator)
    dead = [(group, _half(group.units, generator)) for group in groups]
    for group, units in dead:
        set_to_zero(masked, group.producers, units)
    try:
        expected = outputs_of(masked, example)
        remove(masked, dead)
        return largest_difference(outputs_of(masked, example), expected) <= _TOLERANCE
    except (ConfigurationError, RuntimeError, IndexError, ValueError):  # the network does not run without them
        return False


@torch.no_grad()
def set_to_zero(module: nn.Module, members: Sequence[Member], units: Tensor) -> None:
    """Sets the parameters of some units to zero, in place.

    Args:
        module: The network.
        members: Members of the group.
        units: Boolean, shape (units,).
    """
    for member in members:
        for name, dim in member.tensors.items():
            tensor = module.get_parameter(name)
            tensor.masked_fill_(along(member.of_channels(units).to(tensor.device), tensor, dim), 0)


def _half(units: int, generator: torch.Generator) -> Tensor:
    """Half of the units, at random; not all."""
    chosen = torch.zeros(units, dtype=torch.bool)
    chosen[torch.randperm(units, generator=generator)[: units // 2]] = True
    return chosen


@torch.no_grad()
def _randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Replaces all parameters and statistics by random numbers of usual size."""
    for parameter in module.parameters():
        if not parameter.is_floating_point():
            continue
        if parameter.dim() > 1:
            values = torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
        else:
            values = torch.rand(parameter.shape, generator=generator) + 0.5
        parameter.copy_(values)
    for layer in module.modules():
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            layer.running_mean.copy_(torch.randn(layer.running_mean.shape, generator=generator))
            layer.running_var.copy_(torch.rand(layer.running_var.shape, generator=generator) + 0.5)  # type: ignore[union-attr]

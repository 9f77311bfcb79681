"""Channels that a network does not need: they are always zero, or nothing uses them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_lottery.channels import Group, Member, set_to_zero
from lightning_lottery.export.constants import by_channel, fold_constants


def dead_units(
    module: nn.Module, groups: Sequence[Group], example: Any, unused: bool = False, fold: bool = False
) -> list[tuple[Group, Tensor]]:
    """Finds units whose removal does not change the outputs, and sets all their weights to zero in place.

    A unit is dead if it is always zero, or if all weights that use it are zero. Units that no input reaches are
    constant; where linear layers use them, they can become part of biases, and are then used no more. All this is
    repeated until nothing changes, since a unit that is gone uses no others and gives no input to others.

    Args:
        module: The network, in evaluation mode. Its parameters are changed.
        groups: The groups of channels that can be removed.
        example: What the network is called with.
        unused: Whether units may be removed that are not zero, because nothing uses them.
        fold: Whether constant units may become part of biases.

    Returns:
        Each group with its dead units: boolean, shape (units,). One unit of each group stays.
    """
    dead = [torch.zeros(group.units, dtype=torch.bool) for group in groups]
    while True:
        found = [_new(module, group, so_far, unused) for group, so_far in zip(groups, dead, strict=True)]
        if not any(found) and not (fold and fold_constants(module, groups, example)):
            break
    for so_far in dead:
        so_far[0] &= not bool(so_far.all())
    return list(zip(groups, dead, strict=True))


def _new(module: nn.Module, group: Group, dead: Tensor, unused: bool) -> bool:
    """Adds further dead units of a group to those that are known. Returns whether there are any."""
    alive = _is_nonzero(module, group)
    if unused and group.consumers:
        alive &= _is_used(module, group)
    new = ~alive & ~dead
    set_to_zero(module, group.members, new)
    dead |= new
    return bool(new.any())


def _is_nonzero(module: nn.Module, group: Group) -> Tensor:
    """The units that need not be zero for every input."""
    alive = torch.zeros(group.units)
    for member in group.producers:
        alive += member.of_units(_adds(module, member).cpu().float(), group.units)
    return alive > 0


def _adds(module: nn.Module, member: Member) -> Tensor:
    """The channels of a layer that need not be zero if its input is zero, or if it takes other channels."""
    if not member.tensors:
        return torch.zeros(len(member.channels))
    nonzero = [by_channel(module.get_parameter(name), dim) for name, dim in member.tensors.items()]
    layer = module if member.layer in member.tensors else module.get_submodule(member.layer)
    if isinstance(layer, nn.PReLU):  # the slope for zero does not matter
        return torch.zeros_like(nonzero[0])
    if isinstance(layer, _NormBase) and len(nonzero) == 2 and layer.running_mean is not None:
        weight, bias = nonzero
        return bias | weight & layer.running_mean.ne(0)
    return torch.stack(nonzero).any(dim=0)


def _is_used(module: nn.Module, group: Group) -> Tensor:
    """The units that some following layer multiplies by a weight that is not zero."""
    used = torch.zeros(group.units)
    for member in group.consumers:
        for name, dim in member.tensors.items():
            used += member.of_units(by_channel(module.get_parameter(name), dim).cpu().float(), group.units)
    return used > 0

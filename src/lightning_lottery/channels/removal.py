"""Copies of networks, and the physical removal of channels from them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lightning_lottery.channels.groups import Group, Member, Role
from lightning_lottery.errors import ConfigurationError

# The attributes of layers that are their number of channels on one side.
_SIZES: Mapping[Role, Sequence[str]] = {
    "outputs": ["out_channels", "out_features"],
    "inputs": ["in_channels", "in_features"],
    "both": ["in_channels", "out_channels", "groups", "num_features", "num_parameters"],
}


def copy_of(module: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode, without gradients, that belongs to no Trainer.

    Raises:
        ConfigurationError: The network cannot be copied, or a function in place of a ``forward`` would still call
            the original.
    """
    trainer = _trainer_of(module)
    try:
        made = copy.deepcopy(module, {} if trainer is None else {id(trainer): trainer})
    except Exception as error:
        raise ConfigurationError(
            f"{type(module).__name__} cannot be copied, which is needed to try out what can be removed: {error}. "
            "Remove attributes that copy.deepcopy does not support."
        ) from error
    if trainer is not None:
        made.trainer = None  # type: ignore[assignment]
    for part in made.modules():
        _own_forward(part)
    made.zero_grad(set_to_none=True)
    return made.eval()


def require_gradients(module: nn.Module) -> nn.Module:
    """Sets ``requires_grad`` for all parameters that can have gradients, and returns the network."""
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    return module


def _own_forward(part: nn.Module) -> None:
    """Makes sure that a copied layer does not call the original by a function that was set as its ``forward``."""
    forward = vars(part).get("forward")
    if forward is None or type(part).forward is nn.Module.forward:
        return
    compiled = getattr(forward, "_torchdynamo_orig_callable", None)
    if getattr(compiled, "__func__", None) is type(part).forward:  # set by torch.compile
        del vars(part)["forward"]
        return
    cells = getattr(forward, "__closure__", None) or ()
    held = [cell.cell_contents for cell in cells if not _is_empty(cell)]
    held += [getattr(value, "__self__", None) for value in held]
    if compiled is not None or any(isinstance(value, nn.Module) for value in held):
        raise ConfigurationError(
            f"The forward of a {type(part).__name__} was replaced by a function that belongs to this one network, "
            "so that copies of the network would call the original. Define forward in a class instead."
        )


def _is_empty(cell: Any) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:  # still unset
        return True


def _trainer_of(module: nn.Module) -> object | None:
    """The Trainer of a LightningModule, which cannot be copied; ``None`` without one."""
    try:
        return getattr(module, "trainer", None)
    except RuntimeError:  # it belongs to no Trainer
        return None


@torch.no_grad()
def remove(module: nn.Module, dead: Sequence[tuple[Group, Tensor]]) -> None:
    """Removes channels from a network in place. Its layers keep their classes, and become smaller.

    Args:
        module: The network.
        dead: Groups, each with the units to remove: boolean, shape (units,). At least one unit of each stays.
    """
    kept: dict[tuple[str, str], tuple[Member, Tensor]] = {}
    for group, units in dead:
        for member in group.members:
            # Different groups may have channels in one layer, for example after a concatenation.
            side = (member.layer, member.role)
            stays = ~member.of_channels(units)
            kept[side] = (member, stays & kept[side][1] if side in kept else stays)
    for member, stays in kept.values():
        if not bool(stays.all()):
            _shrink(module, member, stays.nonzero().flatten())


def _shrink(module: nn.Module, member: Member, places: Tensor) -> None:
    """Keeps only some channels of one side of a layer."""
    for name, dim in member.tensors.items():
        path, _, key = name.rpartition(".")
        old = getattr(owner := module.get_submodule(path), key)
        new = nn.Parameter(old.detach().index_select(dim, places.to(old.device)), old.requires_grad)
        setattr(owner, key, new)
    if member.layer in member.tensors:  # a parameter without a layer of its own
        return
    layer = module.get_submodule(member.layer)
    if isinstance(layer, _NormBase):
        for key in ("running_mean", "running_var"):
            if (buffer := getattr(layer, key)) is not None:
                setattr(layer, key, buffer.index_select(0, places.to(buffer.device)))
    vars(layer).update({key: len(places) for key in _SIZES[member.role] if hasattr(layer, key)})

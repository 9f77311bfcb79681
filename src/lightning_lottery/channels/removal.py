"""Copies of networks, and the physical removal of channels from them."""

import copy
from collections.abc import Mapping, Sequence

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
        ConfigurationError: The network cannot be copied.
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
        # torch.compile sets a function that would still call the original.
        forward, has_own = vars(part).get("forward"), type(part).forward is not nn.Module.forward
        if forward is not None and has_own and getattr(forward, "__self__", None) is not part:
            del vars(part)["forward"]
    made.zero_grad(set_to_none=True)
    return made.eval()


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

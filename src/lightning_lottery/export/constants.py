"""Channels that no input reaches: their constant output becomes part of the biases of the layers that use them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from lightning_lottery.channels import Group, along, outputs_of, with_noise
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.export.inputs import watched


def fold_constants(module: nn.Module, groups: Sequence[Group], example: Any) -> bool:
    """Adds the outputs of units that no input reaches to the biases of the linear layers that use them, in place.

    These layers then use them no more. Units that are used by other layers stay: a convolution with padding, for
    example, sees the constant inside the image, but zeros around it.

    Args:
        module: The network, in evaluation mode.
        groups: The groups of channels that can be removed.
        example: What the network is called with. It shows the constants, also with noise, zeros and other
            integers in its place, since padding and masks may switch a unit off.

    Returns:
        Whether there were any.
    """
    found = [(group, units) for group in groups if bool((units := _unreached(module, group)).any())]
    if not found:
        return False
    linear = {member.layer: module.get_submodule(member.layer) for group, _ in found for member in group.consumers}
    inputs: dict[str, Tensor] = {}

    def record(name: str, seen: Tensor) -> None:
        """Appends the inputs of a call to a matrix of shape (calls and samples, inputs)."""
        rows = seen.flatten(0, -2)
        inputs[name] = torch.cat([inputs[name], rows]) if name in inputs else rows

    with watched(linear, record):
        for inputs_of_call in (example, *_other_inputs(example)):
            try:
                outputs_of(module, inputs_of_call)
            except ConfigurationError:  # what would be constant is unknown
                return False
    has_changed = False
    for group, units in found:
        if any(member.layer not in inputs for member in group.consumers):
            continue
        for member in group.consumers:
            # The same for all layers that use the group: a unit must be constant for each of them.
            units = units & member.of_units((~_is_constant(inputs[member.layer])).float(), group.units).eq(0)
        for member in group.consumers:
            _fold(linear[member.layer], member.of_channels(units), inputs[member.layer][0])
        has_changed |= bool(units.any())
    return has_changed


def _unreached(module: nn.Module, group: Group) -> Tensor:
    """The units whose kernels are all zero, but whose output is used, by linear layers with a bias alone."""
    consumers = [module.get_submodule(member.layer) for member in group.consumers]
    if not consumers or not all(isinstance(layer, nn.Linear) and layer.bias is not None for layer in consumers):
        return torch.zeros(group.units, dtype=torch.bool)
    reached, used = torch.zeros(group.units), torch.zeros(group.units)
    for member in group.members:
        for name, dim in member.tensors.items():
            if name == member.kernel:
                total = used if member.role == "inputs" else reached
                total += member.of_units(by_channel(module.get_parameter(name), dim).cpu().float(), group.units)
    return (reached == 0) & (used > 0)


def _other_inputs(example: Any) -> Iterator[Any]:
    """The example with noise; and with one tensor at a time zero, and of integers in another order or negated."""
    yield with_noise(example)
    leaves, structure = tree_flatten(example)
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            others = [torch.zeros_like(leaf)]
            if leaf.dtype == torch.bool:
                others.append(~leaf)
            elif not leaf.is_floating_point():
                others.append(leaf.flatten().roll(1).view(leaf.shape))
            for other in others:
                yield tree_unflatten([*leaves[:place], other, *leaves[place + 1 :]], structure)


def _is_constant(inputs: Tensor) -> Tensor:
    """Whether each column of a matrix has only one value; on the CPU."""
    return inputs.eq(inputs[0]).all(dim=0).cpu()


@torch.no_grad()
def _fold(layer: nn.Module, channels: Tensor, values: Tensor) -> None:
    """Adds the products with some inputs to the bias, and sets their weights to zero."""
    assert isinstance(layer, nn.Linear)
    assert layer.bias is not None
    chosen = channels.to(layer.weight.device)
    constant = torch.where(chosen, values, 0).double()
    layer.bias.add_((layer.weight.double() @ constant).to(layer.bias.dtype))
    layer.weight.masked_fill_(along(chosen, layer.weight, 1), 0)


def by_channel(parameter: Tensor, dim: int) -> Tensor:
    """Whether a parameter has a value other than zero, for each channel along a dimension."""
    rows = parameter.detach().movedim(dim, 0)
    return rows.reshape(len(rows), -1).ne(0).any(dim=1)

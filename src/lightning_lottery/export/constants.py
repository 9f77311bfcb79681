"""Channels that no input reaches: their constant output becomes part of the biases of the layers that use them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lightning_lottery.channels import Group, along, outputs_of


def fold_constants(module: nn.Module, groups: Sequence[Group], example: Any) -> bool:
    """Adds the outputs of units that no input reaches to the biases of the linear layers that use them, in place.

    These layers then use them no more. Units that are used by other layers stay: a convolution with padding, for
    example, sees the constant inside the image, but zeros around it.

    Args:
        module: The network, in evaluation mode.
        groups: The groups of channels that can be removed.
        example: What the network is called with. It shows the constants.

    Returns:
        Whether there were any.
    """
    found = [(group, units) for group in groups if bool((units := _unreached(module, group)).any())]
    if not found:
        return False
    linear = {member.layer: module.get_submodule(member.layer) for group, _ in found for member in group.consumers}
    with _recorded(linear) as inputs:
        outputs_of(module, example)
        outputs_of(module, _disturbed(example))  # what is constant for one sample may differ between samples
    has_changed = False
    for group, units in found:
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


@contextmanager
def _recorded(layers: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Records the inputs of linear layers, by name, as matrices of shape (calls and samples, inputs)."""
    inputs: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            seen = arguments[0].detach().flatten(0, -2)
            inputs[name] = torch.cat([inputs[name], seen]) if name in inputs else seen

        return hook

    handles = [layer.register_forward_pre_hook(record(name)) for name, layer in layers.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def _disturbed(example: Any) -> Any:
    """The example with noise in its floating-point tensors."""
    generator = torch.Generator().manual_seed(0)

    def disturbed(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            return leaf
        return leaf + torch.randn(leaf.shape, generator=generator).to(leaf)

    return tree_map(disturbed, example)


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

"""Groups of coupled channels, in terms of parameters."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Role = Literal["outputs", "inputs", "both"]


@dataclass(frozen=True, eq=False)
class Member:
    """One side of a layer whose channels belong to a group.

    Attributes:
        layer: The name of the layer, or of a parameter that belongs to no layer with channels of its own.
        role: Whether these are the layer's output channels, its input channels, or both at once, as in a
            normalisation or a depthwise convolution.
        channels: For each channel of this side the unit that it belongs to, or -1; ``int64``, shape (channels,).
        tensors: The parameters that have an entry or slice for each of these channels, by name, and the dimension
            of the channels.
        kernel: The name of the layer's weight, if it multiplies by one: a linear or convolution layer.
        is_norm: Whether the layer is a normalisation, which may have no parameters.
    """

    layer: str
    role: Role
    channels: Tensor
    tensors: dict[str, int]
    kernel: str | None = None
    is_norm: bool = False

    def of_channels(self, units: Tensor) -> Tensor:
        """Gives each channel the value of its unit; ``False`` or 0 to channels that belong to none.

        Args:
            units: Shape (units,).
        """
        found = units.to(self.channels.device)[self.channels.clamp(min=0)]
        return found.where(self.channels >= 0, torch.zeros_like(found))

    def of_units(self, channels: Tensor, units: int) -> Tensor:
        """The sums over the channels of each unit.

        Args:
            channels: Shape (channels,).
            units: The number of units.
        """
        has_unit = (self.channels >= 0).to(channels.device)
        places = self.channels.to(channels.device)[has_unit]
        return channels.new_zeros(units).index_add_(0, places, channels[has_unit])


@dataclass(frozen=True, eq=False)
class Group:
    """Channels that can only be removed together with channels of other layers.

    Attributes:
        name: The name of the weight that produces them, the first in the order of definition.
        units: How many there are: each unit is one channel of every layer that produces the group.
        members: The layers that produce, change or take these channels.
    """

    name: str
    units: int
    members: list[Member]

    @property
    def producers(self) -> list[Member]:
        """The members whose own output consists of the channels: all but those that only take them."""
        return [member for member in self.members if member.role != "inputs"]

    @property
    def consumers(self) -> list[Member]:
        """The members that take the channels as inputs."""
        return [member for member in self.members if member.role == "inputs"]

    @property
    def parameters(self) -> list[str]:
        """The names of all parameters that are zero where a unit is removed."""
        return list(dict.fromkeys(name for member in self.producers for name in member.tensors))


@dataclass(frozen=True, eq=False)
class Coupling:
    """The channels of a network that can be removed exactly.

    Attributes:
        groups: The groups, in the order of definition.
        whole: The weights whose output channels cannot be removed, by name, each with the reason.
    """

    groups: list[Group]
    whole: dict[str, str]

    def without(self, reasons: Mapping[str, str]) -> "Coupling":
        """Keeps groups whole that contain certain parameters.

        Args:
            reasons: The parameters, each with the reason.
        """
        groups, whole = [], dict(self.whole)
        for group in self.groups:
            found = [name for name in group.parameters if name in reasons]
            if found:
                whole |= dict.fromkeys(group.parameters, f"{found[0]} {reasons[found[0]]}")
            else:
                groups.append(group)
        return Coupling(groups, whole)


def along(values: Tensor, tensor: Tensor, dim: int) -> Tensor:
    """Shapes a value per channel so that it is broadcast over a tensor with channels along a dimension."""
    return values.view([-1 if place == dim else 1 for place in range(tensor.dim())])

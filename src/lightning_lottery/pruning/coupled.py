"""The pattern of channels that are removed with everything that depends on them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from lightning_lottery.channels import Coupling, Group, Member, along
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import Masks
from lightning_lottery.plain import check_number, make_plain
from lightning_lottery.pruning.layers import Layer
from lightning_lottery.pruning.patterns import Rows
from lightning_lottery.pruning.units import Units


@dataclass(frozen=True)
class CoupledChannels(Rows):
    """Whole channels with everything that depends on them (Fang et al. 2023, arXiv:2301.12900).

    A unit is a channel of a linear or convolution layer, with its bias, the weight and bias of the normalisation
    that follows, its kernel in depthwise convolutions, and the channels of other layers that a residual connection
    adds to it. All of them are zero where a unit is removed, so that its output is exactly zero in training and
    evaluation, and :func:`lightning_lottery.export.compact` can remove it physically. Channels whose removal would
    change the outputs are kept whole: those that LayerNorm or GroupNorm normalise over, those of group
    convolutions, the outputs of the network, and all others for which a trial shows a difference.

    Sizes count units. Density counts prunable weights, not the biases and normalisations that follow them.

    Needs the extra ``structured``. The network is called once on its ``example_input_array``, or else on a batch
    of the training data.

    Attributes:
        norm: The exponent, above 0. The score of a unit is this norm over the scores of all its prunable weights.
            If a criterion gives scores with signs, they are kept in the sum.
        normalise: Whether scores are divided by their mean over the surviving units of the same group, so that
            groups of many layers or large weights do not always win.
    """

    norm: float = 2.0
    normalise: bool = True

    needs_example: ClassVar[bool] = True

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("norm", self.norm, "above 0", "CoupledChannels(norm=2)")
        if not isinstance(self.normalise, bool):
            raise ConfigurationError(f"normalise={self.normalise!r} must be True or False.")

    def group(self, layers: Sequence[Layer], coupling: Coupling | None = None) -> "ChannelUnits":
        """Divides the layers of a network into units.

        Raises:
            ConfigurationError: No channel can be removed.
        """
        if coupling is None:
            raise ConfigurationError(f"{self} needs a network and an example of its inputs, see find_coupling.")
        prunable = {layer.name for layer in layers}
        spared = {n: "is not prunable" for group in coupling.groups for n in _kernels(group) if n not in prunable}
        found = coupling.without(spared)
        if not found.groups:
            reasons = "; ".join(f"{name}: {found.whole[name]}" for name in found.whole if name in prunable)
            raise ConfigurationError(
                f"{self} finds no channels that can be removed ({reasons or 'no layer has any'}). Use another "
                "pattern, such as Channels()."
            )
        return ChannelUnits(self, layers, found)


class ChannelUnits(Units):
    """Units that reach into several layers: coupled channels.

    Args:
        pattern: Scores the channels of one layer.
        layers: The prunable layers in order.
        coupling: The groups of channels that can be removed. All their kernels are prunable.
    """

    def __init__(self, pattern: CoupledChannels, layers: Sequence[Layer], coupling: Coupling) -> None:
        self._pattern, self._groups = pattern, coupling.groups
        self._layers = {layer.name: layer for layer in layers}
        everything = dict.fromkeys(name for group in self._groups for name in group.parameters)
        self.following = [name for name in everything if name not in self._layers]
        self.whole = {
            name: coupling.whole.get(name, "it has no channels that can be removed")
            for name in self._layers
            if name not in everything
        }

    def _tensors(self, group: Group) -> Iterator[tuple[Member, str, int]]:
        """The prunable parameters of a group, each with the dimension of its channels."""
        for member in group.producers:
            yield from ((member, name, dim) for name, dim in member.tensors.items() if name in self._layers)

    def layers(self, masks: Mapping[str, Tensor]) -> list[Layer]:
        made = []
        for group in self._groups:
            names = [name for _, name, _ in self._tensors(group)]
            removed = 0
            if any(name in masks for name in names):
                present = {n: masks.get(n, torch.ones(self._layers[n].shape, dtype=torch.bool)) for n in names}
                removed = group.units - int(self._alive(group, present).count_nonzero())
            layer = replace(self._layers[group.name], units=group.units, removed=removed, is_last=False)
            made.append(replace(layer, tied=tuple(name for name in names if name != group.name)))
        return made

    def scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {group.name: self._scores(group, scores) for group in self._groups}

    def _scores(self, group: Group, scores: Mapping[str, Tensor]) -> Tensor:
        first = scores[group.name]
        sums = torch.zeros(group.units, dtype=torch.float64, device=first.device)
        for member, name, dim in self._tensors(group):
            by_channel = self._pattern.scores(scores[name].movedim(dim, 0))
            sums += member.of_units(by_channel.to(sums), group.units)
        norms = sums.sign() * sums.abs() ** (1 / self._pattern.norm)
        scored = norms.abs()[norms != 0]  # the weights of removed units are zero
        return norms / scored.mean() if self._pattern.normalise and len(scored) else norms

    def alive(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {group.name: self._alive(group, masks) for group in self._groups}

    def _alive(self, group: Group, masks: Mapping[str, Tensor]) -> Tensor:
        alive = torch.zeros(group.units, device=masks[group.name].device)
        for member, name, dim in self._tensors(group):
            by_channel = self._pattern.alive(masks[name].movedim(dim, 0))
            alive += member.of_units(by_channel.to(alive), group.units)
        return alive > 0

    def masks(self, alive: Mapping[str, Tensor], masks: Masks) -> Masks:
        made = dict(masks)
        for group in self._groups:
            removed = ~alive[group.name]
            for member in group.producers:
                stays = ~member.of_channels(removed)
                for name, dim in member.tensors.items():
                    made[name] = made[name] & along(stays.to(made[name].device), made[name], dim)
        return made


def _kernels(group: Group) -> Iterator[str]:
    """The weights of the layers that produce a group by multiplication."""
    return (member.kernel for member in group.producers if member.kernel is not None)

"""What is removed at once: the base class of patterns, and the units that they find in a network."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor

from lightning_lottery.channels import Coupling
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.masks import Masks
from lightning_lottery.pruning.layers import Layer


class Units(ABC):
    """The units of a network. They compete for survival in layers, or in groups of coupled layers.

    Attributes:
        following: The names of parameters that are not prunable themselves, but have masks too: they are zero
            where a unit is removed, and density does not count them.
        whole: The prunable parameters of which nothing can be removed, by name, each with the reason.
    """

    following: Sequence[str] = ()
    whole: Mapping[str, str] = MappingProxyType({})

    def kept_whole(self) -> dict[str, list[str]]:
        """The parameters of which nothing can be removed, by reason."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.whole.items():
            reasons.setdefault(reason, []).append(name)
        return reasons

    @abstractmethod
    def layers(self, masks: Mapping[str, Tensor]) -> list[Layer]:
        """Describes what competes: name, shape, number of units.

        Args:
            masks: The masks of round 0 by name, not sharded; layers without one are dense.
        """

    @abstractmethod
    def scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes the scores of units from the scores of weights, given by parameter.

        Returns:
            By the name of the competing layer, a tensor with a score per unit.
        """

    @abstractmethod
    def alive(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Computes which units survive, given the masks of all prunable parameters; shaped like :meth:`scores`."""

    @abstractmethod
    def masks(self, alive: Mapping[str, Tensor], masks: Masks) -> Masks:
        """Computes the masks of all parameters.

        Args:
            alive: Which units survive, by the name of the competing layer.
            masks: The masks before. The result keeps nothing that they remove.
        """


@dataclass(frozen=True)
class Pattern(ABC):
    """Base class of patterns: groups the weights of a layer into units. Write your own as a frozen dataclass.

    Attributes:
        needs_example: Whether units depend on the network, which must be called on an example to find them.
    """

    needs_example: ClassVar[bool] = False

    def group(self, layers: Sequence[Layer], coupling: Coupling | None = None) -> "Units":
        """Divides the layers of a network into units. By default every layer has its own.

        Args:
            layers: The prunable layers in order.
            coupling: The channels of the network that depend on each other; given if ``needs_example``.

        Raises:
            ConfigurationError: The pattern does not support a layer.
        """
        for layer in layers:
            self.check(layer)
        return LayerUnits(self, layers)

    def check(self, layer: Layer) -> None:
        """Checks that the pattern supports a layer. By default it supports every layer.

        Raises:
            ConfigurationError: The layer is not supported.
        """
        return

    @abstractmethod
    def units(self, shape: tuple[int, ...]) -> int:
        """The number of units in a layer of this shape."""

    def least(self, layer: Layer) -> int:
        """The number of units of a layer that are never removed; 0 by default."""
        return 0

    def least_of(self, layer: Layer, alive: Tensor) -> int:
        """The number of units that are never removed from a layer of which only some units are alive."""
        return min(self.least(layer), int(alive.count_nonzero()))

    def unit_norm_dims(self, layer: Layer) -> tuple[int, ...]:
        """The dimensions of :meth:`scores` that correspond to ``layer.norm_dims``.

        At each position along them, the unit with the largest score is never removed, so that no norm becomes
        zero. By default one unit of the whole layer stays.

        Raises:
            ConfigurationError: The pattern cannot keep a weight for every norm.
        """
        if layer.norm_dims:
            raise ConfigurationError(
                f"{layer.name!r} is divided by norms along dimension {layer.norm_dims[0]}, for example by "
                f"weight_norm. {self} could remove all weights of a norm, which would give NaN. Leave the layer "
                f"out with exclude=[{layer.name!r}], or remove the normalisation, for example with "
                "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight'), or with "
                "torch.nn.utils.remove_weight_norm(layer) if torch.nn.utils.weight_norm added it."
            )
        return ()

    @abstractmethod
    def scores(self, scores: Tensor) -> Tensor:
        """Computes the scores of the units from the scores of a layer's weights."""

    @abstractmethod
    def alive(self, mask: Tensor) -> Tensor:
        """Computes which units survive from a layer's mask; shaped like :meth:`scores`."""

    def removable(self, scores: Tensor, alive: Tensor) -> Tensor:
        """Which surviving units may be removed; all by default. ``scores`` and ``alive`` are per unit."""
        return alive

    @abstractmethod
    def mask(self, alive: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Computes the mask of a layer of this shape from its surviving units."""


class LayerUnits(Units):
    """Units that lie within one layer each.

    Args:
        pattern: Divides a layer into units.
        layers: The prunable layers in order.
    """

    def __init__(self, pattern: Pattern, layers: Sequence[Layer]) -> None:
        self._pattern, self._layers = pattern, layers

    def layers(self, masks: Mapping[str, Tensor]) -> list[Layer]:
        return [self._described(layer, masks.get(layer.name)) for layer in self._layers]

    def _described(self, layer: Layer, mask: Tensor | None) -> Layer:
        """Adds the number of units, of those that are removed in round 0, and of those that always stay."""
        pattern = self._pattern
        alive = None if mask is None else pattern.alive(mask)
        least = pattern.least(layer) if alive is None else pattern.least_of(layer, alive)
        if layer.norm_dims is not None:  # NofM keeps these units anyway
            shape = pattern.scores(torch.empty(layer.shape, device="meta")).shape
            least = max(least, math.prod(shape[dim] for dim in pattern.unit_norm_dims(layer)))
        units = pattern.units(layer.shape)
        removed = 0 if alive is None else units - int(alive.count_nonzero())
        return replace(layer, units=units, removed=removed, least=min(least, units - removed))

    def scores(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self._pattern.scores(score) for name, score in scores.items()}

    def alive(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {layer.name: self._pattern.alive(masks[layer.name]) for layer in self._layers}

    def masks(self, alive: Mapping[str, Tensor], masks: Masks) -> Masks:
        made = {name: self._mask(units, masks[name]) for name, units in alive.items()}
        return {**masks, **made}

    def _mask(self, alive: Tensor, before: Tensor) -> Tensor:
        mask = self._pattern.mask(alive, tuple(before.shape))
        # Where units are single weights, the mask is the survivors, which are among those before.
        return mask if mask is alive else mask & before

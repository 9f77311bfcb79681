"""Describes prunable layers to patterns and scopes."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from lightning_lottery.pruning.kinds import Kind, kinds_of, norms_of


@dataclass(frozen=True)
class Layer:
    """A prunable parameter, as patterns and scopes see it.

    Attributes:
        name: The name of the parameter.
        shape: Its shape.
        kind: The class of the layer that it belongs to.
        is_last: Whether it is the last matrix of the network in the order of definition, prunable or not.
        units: Number of units that the pattern divides it into.
        floor: Number of units that ``min_density`` and ``keep_alive`` keep in every round.
        least: Number of units that stay in every round, including those that the pattern keeps.
        norm_dims: If the weights are divided by their norms, the dimensions along which there are separate norms:
            ``(0,)`` if each row has its own, ``()`` if there is a single norm. ``None`` without a norm.
        removed: Number of units that do not survive in round 0, because the search starts from a ticket.
        tied: The names of further parameters that the units reach into.
    """

    name: str
    shape: tuple[int, ...]
    kind: type[nn.Module] = nn.Module
    is_last: bool = False
    units: int = 0
    floor: int = 0
    least: int = 0
    norm_dims: tuple[int, ...] | None = None
    removed: int = 0
    tied: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all parameters that its units reach into."""
        return (self.name, *self.tied)

    @property
    def alive(self) -> int:
        """Number of units that survive in round 0."""
        return self.units - self.removed


def layers_of(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[Layer]:
    """Describes prunable parameters to patterns and scopes."""
    owners = {id(p): type(layer) for layer in module.modules() for p in layer.parameters(recurse=False)}
    matrices = [name for name, kind in kinds_of(module).items() if kind is Kind.MATRIX]
    norms, last = norms_of(module), matrices[-1] if matrices else None
    for path, layer in module.named_modules():
        if isinstance(layer, ParametrizationList):  # its weights belong to the layer around it
            owner = type(module.get_submodule(".".join(path.split(".")[:-2])))
            owners |= {id(p): owner for p in layer.parameters(recurse=False)}
    return [
        Layer(name, tuple(p.shape), owners[id(p)], is_last=name == last, norm_dims=norms.get(id(p)))
        for name, p in parameters.items()
    ]

"""What is known of a layer whose weights are pruned."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from lightning_lottery.pruning.kinds import Kind, kinds_of, norms_of


@dataclass(frozen=True)
class Layer:
    """What patterns and scopes know of prunable weights.

    Attributes:
        name: The parameter's name.
        shape: Its shape.
        kind: The layer that it belongs to.
        is_last: Whether it is the last of the network, in the order of definition, prunable or not.
        units: How many units the pattern makes of it.
        floor: How many of them stay in every round by ``min_density`` and ``keep_alive``.
        least: How many of them stay in every round, also by the pattern.
        norm_dims: The dimensions along which the norms lie apart that the weights are divided by: ``(0,)`` if each
            row is divided by its own, ``()`` if there is one norm; ``None`` if they are divided by none.
    """

    name: str
    shape: tuple[int, ...]
    kind: type[nn.Module] = nn.Module
    is_last: bool = False
    units: int = 0
    floor: int = 0
    least: int = 0
    norm_dims: tuple[int, ...] | None = None


def layers_of(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[Layer]:
    """What patterns and scopes want to know of prunable parameters."""
    owners = {id(p): type(layer) for layer in module.modules() for p in layer.parameters(recurse=False)}
    matrices = [name for name, kind in kinds_of(module).items() if kind is Kind.MATRIX]
    norms, last = norms_of(module), matrices[-1] if matrices else None
    for path, layer in module.named_modules():
        if isinstance(layer, ParametrizationList):  # its weights are those of the layer around it
            owner = type(module.get_submodule(".".join(path.split(".")[:-2])))
            owners |= {id(p): owner for p in layer.parameters(recurse=False)}
    return [
        Layer(name, tuple(p.shape), owners[id(p)], is_last=name == last, norm_dims=norms.get(id(p)))
        for name, p in parameters.items()
    ]

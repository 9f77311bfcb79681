"""Reads groups of coupled channels from Torch-Pruning's dependency graph (Fang et al. 2023, arXiv:2301.12900)."""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_leaves

from lightning_lottery.channels.example import call, isolated
from lightning_lottery.channels.groups import Group, Member, Role
from lightning_lottery.errors import ConfigurationError

_MATRICES = (_ConvNd, nn.Linear)
_NORMS = (_BatchNorm, _InstanceNorm)

# The side of a layer, parameter or operation whose channels are removed, and which units they belong to.
Sides = dict[tuple[Any, Role], dict[int, int]]


class _Channel(NamedTuple):
    """A channel, and the unit that it belongs to, as the index mappings of Torch-Pruning take them."""

    idx: int
    root_idx: int


@dataclass
class _Walk:
    """What depends on the output channels of a layer.

    Attributes:
        units: The number of channels.
        sides: What was reached.
        dims: For each parameter without a layer, the dimension of its channels.
        is_one_to_one: Whether everything that was reached depends on a single unit.
    """

    units: int
    sides: Sides = field(default_factory=dict)
    dims: dict[Any, int] = field(default_factory=dict)
    is_one_to_one: bool = True


def require_torch_pruning() -> Any:
    """Imports Torch-Pruning.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise ConfigurationError(
            "Coupled channels need the package torch-pruning. Install the extra: "
            'pip install "lightning-lottery[structured]"'
        ) from error
    return torch_pruning


class Graph:
    """The dependency graph of a network.

    Args:
        network: The network, in evaluation mode, with ``requires_grad`` set for all its parameters.
        example: What it is called with.

    Raises:
        ConfigurationError: Torch-Pruning is not installed, or cannot trace the network.
    """

    def __init__(self, network: nn.Module, example: Any) -> None:
        pruning = require_torch_pruning()
        with warnings.catch_warnings(), torch.enable_grad(), isolated():
            warnings.simplefilter("ignore")
            try:
                self._graph = pruning.DependencyGraph()
                self._graph.build_dependency(network, example, call, _with_gradients, verbose=False)
                self._found = list(self._walks())
            except Exception as error:  # whatever it raises, it cannot be used
                raise _cannot_trace(network, f"{type(error).__name__}: {error}") from error
        if not self._found and any(isinstance(layer, _MATRICES) for layer in network.modules()):
            raise _cannot_trace(network, "its outputs have no gradients")
        self._layers = {layer: name for name, layer in network.named_modules()}
        self._parameters = {parameter: name for name, parameter in network.named_parameters()}
        names = network.named_parameters(remove_duplicate=False)
        uses = Counter(parameter for _, parameter in names)
        self._shared = {parameter for parameter, count in uses.items() if count > 1}
        self._order = {name: place for place, name in enumerate(self._parameters.values())}
        self._ends = {node.module for node in self._graph.module2node.values() if not node.outputs}

    def groups(self) -> tuple[list[Group], dict[str, str]]:
        """Reads the groups.

        Returns:
            The groups in the order of definition; and the parameters of those that cannot be removed, by name,
            each with the reason.
        """
        groups: list[Group] = []
        whole: dict[str, str] = {}
        for walk in self._found:
            if reason := self._reason(walk):
                whole |= dict.fromkeys(self._changed(walk), reason)
                continue
            members = [self._member(*side, units, walk.dims[side[0]]) for side, units in self._sides(walk).items()]
            members = sorted((m for m in members if m.tensors or m.is_norm), key=self._place)
            weights = [member.kernel for member in members if member.role == "outputs" and member.kernel]
            if weights:
                groups.append(Group(weights[0], walk.units, members))
        return sorted(groups, key=lambda group: self._order[group.name]), whole

    def _place(self, member: Member) -> int:
        """Sorts members by their parameters, in the order of definition; those without come last."""
        return min((self._order[name] for name in member.tensors), default=len(self._order))

    def _walks(self) -> Iterator["_Walk"]:
        """What depends on the output channels of each linear and convolution layer; every layer appears once."""
        covered: set[Any] = set()
        for module, node in self._graph.module2node.items():
            if not isinstance(module, _MATRICES) or module in covered:
                continue
            pruner = self._graph.get_pruner_of_module(module)
            walk = self._walk(node, pruner.prune_out_channels, pruner.get_out_channels(module))
            covered |= {module for (module, role) in walk.sides if role != "inputs"}
            yield walk

    def _walk(self, root: Any, prune: Any, units: int) -> "_Walk":
        """Follows the dependencies of the output channels of a layer.

        Torch-Pruning's own search does not end in some networks, and does not tell if a channel depends on several
        others. Here, the search ends as soon as one does.
        """
        walk = _Walk(units)
        to_do = [(root, prune, [_Channel(place, place) for place in range(units)])]
        while to_do:
            node, handler, channels = to_do.pop()
            known = walk.sides.setdefault((node.module, self._role(handler)), {})
            walk.dims[node.module] = node.pruning_dim
            new = []
            for channel in channels:
                if channel.idx not in known:
                    known[channel.idx] = channel.root_idx
                    new.append(channel)
                elif known[channel.idx] != channel.root_idx:
                    walk.is_one_to_one = False
                    return walk
            for dependency in node.dependencies if new else ():
                if dependency.is_triggered_by(handler):
                    reached = new
                    for mapping in filter(None, dependency.index_mapping):
                        reached = mapping(reached)
                    if reached:
                        to_do.append((dependency.target, dependency.handler, reached))
        return walk

    def _role(self, handler: Any) -> Role:
        is_out, is_in = (
            self._graph.is_out_channel_pruning_fn(handler),
            self._graph.is_in_channel_pruning_fn(handler),
        )
        return "both" if is_out and is_in else "outputs" if is_out else "inputs"

    def _sides(self, walk: "_Walk") -> Sides:
        """The layers and parameters that a walk has reached, without operations, such as additions."""
        return {
            (module, role): units
            for (module, role), units in walk.sides.items()
            if module in self._layers or module in self._parameters
        }

    def _changed(self, walk: "_Walk") -> list[str]:
        """The names of all parameters of layers whose outputs would lose channels."""
        names = []
        for module, role in self._sides(walk):
            if role != "inputs":
                inside = [module] if isinstance(module, nn.Parameter) else module.parameters()
                names += [self._parameters[parameter] for parameter in inside]
        return names

    def _member(self, module: Any, role: Role, units: dict[int, int], dim: int) -> Member:
        tensors: dict[str, int] = {}
        size = len(units)
        if isinstance(module, nn.Parameter):
            name = self._parameters[module]
            return Member(name, role, _table(units, module.shape[dim]), {name: dim % module.dim()})
        name = self._layers[module]
        if isinstance(module, _MATRICES):
            is_transposed = isinstance(module, _ConvNd) and module.transposed
            dim = int(is_transposed) if role != "inputs" else 1 - int(is_transposed)
            tensors["weight"] = dim
            if role != "inputs":
                tensors["bias"] = 0
            size = module.weight.shape[dim]
        elif isinstance(module, _NORMS):
            tensors, size = {"weight": 0, "bias": 0}, module.num_features
        elif isinstance(module, nn.PReLU) and module.num_parameters > 1:
            tensors, size = {"weight": 0}, module.num_parameters
        own = dict(module.named_parameters(recurse=False))
        tensors = {f"{name}.{key}".lstrip("."): dim for key, dim in tensors.items() if key in own}
        kernel = next(iter(tensors), None) if isinstance(module, _MATRICES) else None
        return Member(name, role, _table(units, size), tensors, kernel, isinstance(module, _NORMS))

    def _reason(self, walk: "_Walk") -> str:
        """Why the channels of a group cannot be removed; an empty string if nothing speaks against it."""
        if any(module in self._ends and role != "inputs" for module, role in walk.sides):
            return "its channels are outputs of the network"
        for module, role in self._sides(walk):
            if reason := self._unsupported(module, role):
                return reason
        return "" if walk.is_one_to_one else "its channels depend on each other"

    def _unsupported(self, module: nn.Module, role: Role) -> str:
        """Why the channels of a layer cannot be removed; an empty string if they can."""
        if isinstance(module, nn.Parameter):
            return f"{self._parameters[module]} is used twice" if module in self._shared else ""
        name = f"{self._layers[module]} ({type(module).__name__})"
        if any(parameter in self._shared for parameter in module.parameters(recurse=False)):
            return f"{name} shares a parameter with another layer"
        if isinstance(module, _MATRICES):
            if "weight" not in dict(module.named_parameters(recurse=False)):
                return f"the weight of {name} is computed from other parameters"
            if isinstance(module, _ConvNd) and module.groups > 1:
                is_depthwise = module.groups == module.in_channels == module.out_channels
                return "" if is_depthwise and role == "both" else f"{name} is a group convolution"
            return ""
        if isinstance(module, _NORMS):
            # Running statistics may come from before the channel was removed.
            is_zero = module.affine or not module.track_running_stats
            return "" if is_zero else f"{name} has no weight and bias, which could be zero"
        if isinstance(module, nn.PReLU):
            return ""
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            return f"{name} normalises over channels"
        return f"{name} is of a type whose channels cannot be removed"


def _with_gradients(outputs: Any) -> list[Tensor]:
    """The tensors in the outputs of a network that depend on its parameters."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.grad_fn is not None]


def _cannot_trace(network: nn.Module, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"Torch-Pruning cannot trace {type(network).__name__} ({reason}), so its coupled channels are unknown. "
        "Use pattern=Channels(), whose channels are not coupled, or another network."
    )


def _table(units: dict[int, int], size: int) -> Tensor:
    """The unit of each channel, or -1."""
    return torch.tensor([-1 if units.get(channel) is None else units[channel] for channel in range(size)])

"""Reads groups of coupled channels from Torch-Pruning's dependency graph (Fang et al. 2023, arXiv:2301.12900)."""

import warnings
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils._pytree import tree_leaves

from lightning_lottery.channels.example import call
from lightning_lottery.channels.groups import Group, Member, Role
from lightning_lottery.errors import ConfigurationError

_MATRICES = (_ConvNd, nn.Linear)
_NORMS = (_BatchNorm, _InstanceNorm)

# The side of a layer whose channels are removed, and which units they belong to.
Sides = dict[tuple[nn.Module, Role], dict[int, int]]


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
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            try:
                self._graph = pruning.DependencyGraph()
                self._graph.build_dependency(network, example, call, _with_gradients, verbose=False)
                self._found = list(self._graph.get_all_groups())
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
        for found in self._found:
            sides = self._sides(found)
            if reason := self._reason(found, sides):
                whole |= dict.fromkeys(self._changed(sides), reason)
                continue
            dims = {item.dep.target.module: item.dep.target.pruning_dim for item in found}
            members = [self._member(*side, units, dims[side[0]]) for side, units in sides.items()]
            members = sorted((m for m in members if m.tensors), key=lambda m: self._order[next(iter(m.tensors))])
            weights = [member.kernel for member in members if member.role == "outputs" and member.kernel]
            if weights:
                groups.append(Group(weights[0], len(found[0].idxs), members))
        return sorted(groups, key=lambda group: self._order[group.name]), whole

    def _changed(self, sides: Sides) -> list[str]:
        """The names of all parameters of layers whose outputs would lose channels."""
        names = []
        for module, role in sides:
            if role != "inputs":
                inside = [module] if isinstance(module, nn.Parameter) else module.parameters()
                names += [self._parameters[parameter] for parameter in inside]
        return names

    def _sides(self, found: Any) -> Sides:
        """The layers of a group of the graph, and for each of their channels its unit."""
        sides: Sides = {}
        for item in found:
            module, handler = item.dep.target.module, item.dep.handler
            if module not in self._layers and module not in self._parameters:
                continue  # an operation, such as an addition
            is_out, is_in = (
                self._graph.is_out_channel_pruning_fn(handler),
                self._graph.is_in_channel_pruning_fn(handler),
            )
            role: Role = "both" if is_out and is_in else "outputs" if is_out else "inputs"
            sides.setdefault((module, role), {}).update(zip(item.idxs, item.root_idxs, strict=True))
        return sides

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
        return Member(name, role, _table(units, size), tensors, kernel)

    def _reason(self, found: Any, sides: Sides) -> str:
        """Why the channels of a group cannot be removed; an empty string if nothing speaks against it."""
        ends = {item.dep.target.module for item in found if item.dep.target.module in self._ends}
        if any((module, "inputs") not in sides for module in ends):
            return "its channels are outputs of the network"
        for module, role in sides:
            if reason := self._unsupported(module, role):
                return reason
        return "" if self._is_one_to_one(found) else "its channels depend on each other"

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

    def _is_one_to_one(self, found: Any) -> bool:
        """Whether removing some units of a group removes just these units."""
        root, half = found[0].dep, set(found[0].idxs[::2])
        removed = self._sides(self._graph.get_pruning_group(root.target.module, root.handler, sorted(half)))
        return all(
            set(channels) == {channel for channel, unit in all_channels.items() if unit in half}
            for side, all_channels in self._sides(found).items()
            for channels in [removed.get(side, {})]
        )


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

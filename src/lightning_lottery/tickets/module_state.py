"""The state of a network besides the weights in a ticket: buffers, flags, extra states, metrics."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection, MetricTracker

from lightning_lottery.tickets.tensors import moved_like, put

# Attributes of torchmetrics' collections and trackers besides their metrics. No public method resets them.
_NOTES = ("_groups", "_groups_checked", "_state_is_copy", "_increment_called")


@dataclass(frozen=True)
class ModuleState:
    """The state of a network that a ticket does not contain or cannot restore, as plain values.

    Attributes:
        buffers: All buffers by layer and name, including non-persistent ones. They may appear, vanish or change
            shape during training.
        requires_grad: The ``requires_grad`` flags of all parameters.
        training: The ``training`` flags of all layers.
        extra: The extra states (``get_extra_state``) by layer.
        metrics: The states of torchmetrics' metrics, collections and trackers by layer.
    """

    buffers: dict[str, dict[str, Tensor | None]]
    requires_grad: dict[str, bool]
    training: dict[str, bool]
    extra: dict[str, Any]
    metrics: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, module: nn.Module) -> "ModuleState":
        """Copies the current state of a network."""
        layers = dict(module.named_modules())
        return cls(
            buffers={
                name: {key: None if b is None else b.detach().clone() for key, b in _buffers(layer).items()}
                for name, layer in layers.items()
            },
            requires_grad={name: p.requires_grad for name, p in module.named_parameters()},
            training={name: layer.training for name, layer in layers.items()},
            extra={n: copy.deepcopy(layer.get_extra_state()) for n, layer in layers.items() if _has_extra(layer)},
            metrics={n: copy.deepcopy(_metric_state(layer)) for n, layer in layers.items() if is_metric(layer)},
        )

    def missing_layers(self, module: nn.Module) -> list[str]:
        """The names of layers in the state that a network does not have."""
        present = {name for name, _ in module.named_modules(remove_duplicate=False)}
        return [name for name in self.training if name not in present]

    def _remove_new(self, module: nn.Module) -> None:
        """Removes parameters, layers and metrics that were added, for example by ``MetricTracker.increment``."""
        layers = dict(module.named_modules(remove_duplicate=False))
        known = {id(layer) for name, layer in layers.items() if name in self.training}
        for name, layer in layers.items():
            if name not in self.training and id(layer) not in known:
                parent, _, key = name.rpartition(".")
                if parent in self.training:  # otherwise it is removed with its parent
                    delattr(layers[parent], key)
        parameters = dict(module.named_parameters(remove_duplicate=False))
        kept = {id(parameter) for name, parameter in parameters.items() if name in self.requires_grad}
        for name, parameter in reversed(parameters.items()):
            if id(parameter) not in kept:
                parent, _, key = name.rpartition(".")
                _remove_parameter(layers[parent], key)

    @torch.no_grad()
    def restore(self, module: nn.Module) -> None:
        """Restores the state of a network in place.

        Args:
            module: The network that the state was taken from.
        """
        self._remove_new(module)
        device = next((parameter.device for parameter in module.parameters()), None)
        for name, layer in module.named_modules():
            if name in self.buffers:
                _restore_buffers(layer, self.buffers[name], device)
            layer.training = self.training.get(name, layer.training)
            if name in self.extra:
                layer.set_extra_state(moved_like(copy.deepcopy(self.extra[name]), layer.get_extra_state()))
            if name in self.metrics:
                if isinstance(layer, Metric):
                    layer.reset()  # also clears computed and cached values
                vars(layer).update(copy.deepcopy(self.metrics[name]))
                if isinstance(layer, Metric):
                    layer.to(layer.device)  # the state may come from a file
        if lost := self.missing_layers(module):
            rank_zero_warn(f"The layers {lost} were removed or renamed during training and cannot be restored.")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self.requires_grad.get(name, parameter.requires_grad))


def _remove_parameter(layer: nn.Module, key: str) -> None:
    if isinstance(layer, nn.ParameterDict):
        del layer[key]
        return
    delattr(layer, key)
    if isinstance(layer, nn.ParameterList):
        vars(layer)["_size"] -= 1  # ParameterList has no public method to shorten it


def _buffers(layer: nn.Module) -> dict[str, Tensor | None]:
    # named_buffers() omits buffers that are None until the first batch.
    buffers: dict[str, Tensor | None] = vars(layer)["_buffers"]
    return buffers


def _restore_buffers(layer: nn.Module, saved: dict[str, Tensor | None], device: torch.device | None) -> None:
    buffers = _buffers(layer)
    for key in buffers.keys() - saved.keys():
        del buffers[key]
    for key, value in saved.items():
        present = buffers.get(key)
        if value is not None and present is not None:
            put(layer, key, value)  # its shape may have changed
        else:
            buffers[key] = None if value is None else value.to(device, copy=True)


def _has_extra(layer: nn.Module) -> bool:
    return type(layer).get_extra_state is not nn.Module.get_extra_state


def is_metric(value: object) -> bool:
    """Whether a value is a torchmetrics metric, collection or tracker."""
    return isinstance(value, (Metric, MetricCollection, MetricTracker))


def _metric_state(metric: nn.Module) -> dict[str, Any]:
    if isinstance(metric, Metric):
        return {**metric.metric_state, "_update_count": metric.update_count}
    return {name: value for name, value in vars(metric).items() if name in _NOTES}

"""What a network returns to before every round, besides the weights that a ticket holds."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class ModuleState:
    """What a ticket does not carry, or cannot put back by itself.

    These are buffers that are not saved, or that appear, vanish or change shape while training; the
    ``requires_grad`` and ``training`` flags; extra state (``get_extra_state``); the states of metrics.

    Args:
        module: The network, in the state to return to.
    """

    def __init__(self, module: nn.Module) -> None:
        self._buffers = {
            name: {
                key: None if buffer is None else buffer.detach().clone() for key, buffer in _buffers(layer).items()
            }
            for name, layer in module.named_modules()
        }
        self._requires_grad = {name: p.requires_grad for name, p in module.named_parameters()}
        self._training = {name: layer.training for name, layer in module.named_modules()}
        self._extra = {
            name: copy.deepcopy(layer.get_extra_state())
            for name, layer in module.named_modules()
            if _has_extra(layer)
        }
        self._metrics = {
            name: copy.deepcopy(_metric_state(layer))
            for name, layer in module.named_modules()
            if isinstance(layer, Metric)
        }

    @torch.no_grad()
    def restore(self, module: nn.Module) -> None:
        """Puts everything back in place.

        Args:
            module: The network that the state was taken from.
        """
        for name, layer in module.named_modules():
            if name in self._buffers:
                _restore_buffers(_buffers(layer), self._buffers[name])
            layer.training = self._training.get(name, layer.training)
            if name in self._extra:
                layer.set_extra_state(copy.deepcopy(self._extra[name]))
            if name in self._metrics and isinstance(layer, Metric):
                layer.reset()  # also what it has computed and cached
                vars(layer).update(copy.deepcopy(self._metrics[name]))
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(self._requires_grad.get(name, parameter.requires_grad))


def _buffers(layer: nn.Module) -> dict[str, Tensor | None]:
    # named_buffers() leaves out those that are None until the first batch.
    buffers: dict[str, Tensor | None] = vars(layer)["_buffers"]
    return buffers


def _restore_buffers(buffers: dict[str, Tensor | None], saved: dict[str, Tensor | None]) -> None:
    for key in buffers.keys() - saved.keys():
        del buffers[key]
    for key, value in saved.items():
        present = buffers.get(key)
        if value is not None and present is not None:
            present.data = value.clone()  # not copy_: a cache may have grown since
        else:
            buffers[key] = None if value is None else value.clone()


def _has_extra(layer: nn.Module) -> bool:
    return type(layer).get_extra_state is not nn.Module.get_extra_state


def _metric_state(metric: Metric) -> dict[str, Any]:
    return {**metric.metric_state, "_update_count": metric.update_count}

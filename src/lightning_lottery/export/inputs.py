"""The inputs of linear layers in calls of a network."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def recorded_inputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Records the inputs of linear layers, by name, as matrices of shape (calls and samples, inputs)."""
    inputs: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            seen = arguments[0] if arguments else named["input"]
            rows = seen.detach().reshape(-1, seen.shape[-1])
            inputs[name] = torch.cat([inputs[name], rows]) if name in inputs else rows

        return hook

    handles = [layer.register_forward_pre_hook(record(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()

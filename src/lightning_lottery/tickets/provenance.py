"""Describes where a ticket comes from."""

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version

import torch
from torch import nn


def provenance(module: nn.Module | None, seed: int | None, described: Mapping[str, str]) -> dict[str, str]:
    """Describes how tickets are found, for ticket files and ``lottery.json``.

    Args:
        module: The network, if there is one.
        seed: The seed of PyTorch's global generator, if the tickets depend on it.
        described: Criterion, scope, pattern and rewinding rule, or another source, as strings.

    Returns:
        These descriptions, the seed, a fingerprint of the network's structure, and package versions.
    """
    return {
        **described,
        **({} if seed is None else {"seed": str(seed)}),
        **({} if module is None else {"structure": structure_of(module)}),
        "lightning_lottery_version": version("lightning-lottery"),
        "lightning_version": version("lightning"),
        "torch_version": torch.__version__,
    }


def structure_of(module: nn.Module) -> str:
    """A fingerprint of the names, shapes and types of a network's parameters and buffers."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    description = json.dumps([(name, list(tensor.shape), str(tensor.dtype)) for name, tensor in tensors])
    return hashlib.sha256(description.encode()).hexdigest()[:16]

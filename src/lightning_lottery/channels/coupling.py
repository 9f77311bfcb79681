"""Finds the channels of a network that can be removed exactly."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from lightning_lottery.channels.exactness import exact_groups
from lightning_lottery.channels.example import check_example, resized, to_device_of
from lightning_lottery.channels.graph import Graph
from lightning_lottery.channels.groups import Coupling
from lightning_lottery.channels.removal import require_gradients
from lightning_lottery.channels.trial import Trial
from lightning_lottery.errors import ConfigurationError


def find_coupling(module: nn.Module, example: Any) -> Coupling:
    """Finds the channels of a network that can be removed exactly.

    The network is not changed. Groups whose removal would change the outputs are kept whole.

    Args:
        module: The network.
        example: What it is called with: a tensor, a tuple of arguments, or a dictionary of keyword arguments. Two
            samples of it are used.

    Raises:
        ConfigurationError: Torch-Pruning is not installed, the network fails on the example, or cannot be traced.
    """
    check_example(example)
    with _eagerly():
        trial = _short_trial(module, to_device_of(module, example))
        network = require_gradients(trial.network(module))
        found, whole = Graph(network, trial.examples[0]).groups()
        exact = exact_groups(network, trial, found)
    for group in found:
        if group not in exact:
            whole |= dict.fromkeys(group.parameters, "removing its channels changes the outputs of the network")
    return Coupling(exact, {name: whole[name] for name, _ in network.named_parameters() if name in whole})


def _short_trial(module: nn.Module, example: Any) -> Trial:
    """A trial on two samples, or on the whole example if the network does not run on two."""
    try:
        return Trial.of(module, resized(example, 2))
    except ConfigurationError:
        return Trial.of(module, example)


def _eagerly() -> AbstractContextManager[Any]:
    """Lets compiled layers run without compilation, which hides what depends on what (PyTorch 2.6 and newer)."""
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")

"""Calling a network on an example of its inputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from lightning_lottery.errors import ConfigurationError


def call(module: nn.Module, example: Any) -> Any:
    """Calls a network.

    Args:
        module: The network.
        example: A tensor, a list or tuple of positional arguments, or a dictionary of keyword arguments.
    """
    if isinstance(example, Mapping):
        return module(**example)
    if isinstance(example, (tuple, list)):
        return module(*example)
    return module(example)


def outputs_of(module: nn.Module, example: Any) -> list[Tensor]:
    """All tensors in the result of a call, without gradients. Random numbers in a call are always the same.

    Raises:
        ConfigurationError: The call fails, or returns no tensor.
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        torch.manual_seed(0)
        try:
            found = [leaf for leaf in tree_leaves(call(module, example)) if isinstance(leaf, Tensor)]
        except Exception as error:
            raise ConfigurationError(f"{described(module, example)} failed: {error}") from error
    if not found:
        raise ConfigurationError(f"{described(module, example)} returns no tensor, so results cannot be compared.")
    return found


def described(module: nn.Module, example: Any) -> str:
    """Names a call in an error message."""
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(example) if isinstance(leaf, Tensor))
    return f"Calling {type(module).__name__} on an example with tensors of shape {shapes or 'none'}"


def check_example(example: Any) -> None:
    """Checks that an example contains a tensor.

    Raises:
        ConfigurationError: It does not.
    """
    if not any(isinstance(leaf, Tensor) for leaf in tree_leaves(example)):
        raise ConfigurationError(
            f"example={example!r:.200} contains no tensor. Pass what the network is called with: a batch of "
            "inputs, a tuple of arguments, or a dictionary of keyword arguments."
        )


def example_of(module: nn.Module, batch: Any = None) -> Any:
    """The inputs that a LightningModule is called with.

    Args:
        module: The network. Its ``example_input_array`` is used if it is set.
        batch: A batch of the training data: the inputs, or a list or tuple that begins with them.

    Raises:
        ConfigurationError: The inputs in the batch are not known.
    """
    example = getattr(module, "example_input_array", None)
    if example is None and isinstance(batch, (tuple, list)) and batch:
        example = batch[0]
    elif example is None and isinstance(batch, Tensor):
        example = batch
    if not isinstance(example, (Tensor, tuple, list, Mapping)):
        raise ConfigurationError(
            "CoupledChannels calls the network on an example, but the inputs could not be found"
            + (" without data" if batch is None else f" in a batch of type {type(batch).__name__}")
            + ". Set self.example_input_array in the LightningModule: a tensor, a tuple of arguments, or a "
            "dictionary of keyword arguments of forward."
        )
    check_example(example)
    return example


def to_device_of(module: nn.Module, example: Any) -> Any:
    """Moves an example to the device of a network."""
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return tree_map(lambda leaf: leaf.detach().to(device) if isinstance(leaf, Tensor) else leaf, example)


def in_single_precision(example: Any) -> Any:
    """Converts the floating-point tensors of an example to single precision."""

    def converted(leaf: Any) -> Any:
        return leaf.float() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return tree_map(converted, example)


def resized(example: Any, samples: int) -> Any:
    """Repeats or shortens an example to another batch size.

    Args:
        example: Tensors with the samples along the first dimension. Tensors of another length stay.
        samples: The batch size, at least 1.
    """
    sizes = [leaf.shape[0] for leaf in tree_leaves(example) if isinstance(leaf, Tensor) and leaf.dim()]
    batch = sizes[0] if sizes else 0

    def changed(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == batch and batch):
            return leaf
        places: Sequence[int] = [place % batch for place in range(samples)]
        return leaf[places].contiguous()

    return tree_map(changed, example)

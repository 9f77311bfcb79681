"""Calling a network on an example of its inputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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


@contextmanager
def isolated() -> Iterator[None]:
    """Uses the same random numbers each time, and leaves the global generators as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        yield


@contextmanager
def _full_precision(example: Any) -> Iterator[None]:
    """Switches off autocast, and TensorFloat-32, which CUDA uses for convolutions by default."""
    kinds = {leaf.device.type for leaf in tree_leaves(example) if isinstance(leaf, Tensor)}
    matrices, convolutions = torch.get_float32_matmul_precision(), None
    torch.set_float32_matmul_precision("highest")
    with suppress(RuntimeError):  # PyTorch 2.9 and newer, if other code uses the settings that replace this one
        convolutions, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        with torch.autocast(next(iter(kinds), "cpu"), enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        if convolutions is not None:
            torch.backends.cudnn.allow_tf32 = convolutions


def outputs_of(module: nn.Module, example: Any) -> list[Tensor]:
    """All tensors in the result of a call, without gradients. Random numbers in a call are always the same.

    Raises:
        ConfigurationError: The call fails, or returns no tensor.
    """
    with torch.no_grad(), isolated(), _full_precision(example):
        try:
            found = [leaf for leaf in tree_leaves(call(module, example)) if isinstance(leaf, Tensor)]
        except Exception as error:
            raise ConfigurationError(f"{described(module, example)} failed: {error}") from error
    if not found:
        raise ConfigurationError(f"{described(module, example)} returns no tensor, so results cannot be compared.")
    return found


def unreached(module: nn.Module, example: Any) -> list[str]:
    """The names of parameters that the outputs of a call do not depend on; none if there are no gradients."""
    # Only the graph is needed: without the activations it takes little memory.
    discard = torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing)
    try:
        with torch.enable_grad(), isolated(), discard:
            leaves = [leaf for leaf in tree_leaves(call(module, example)) if isinstance(leaf, Tensor)]
    except Exception:  # the network does not run with gradients
        return []
    to_do: list[Any] = [leaf.grad_fn for leaf in leaves if leaf.grad_fn is not None]
    if not to_do:
        return []
    seen, reached = set(to_do), set()
    while to_do:
        node = to_do.pop()
        reached.add(id(getattr(node, "variable", None)))  # nodes that accumulate the gradient of a parameter
        new = {following for following, _ in node.next_functions if following is not None} - seen
        seen |= new
        to_do += new
    return [name for name, parameter in module.named_parameters() if id(parameter) not in reached]


def described(module: nn.Module, example: Any) -> str:
    """Names a call in an error message."""
    shapes = ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(example) if isinstance(leaf, Tensor))
    return f"Calling {type(module).__name__} on an example with tensors of shape {shapes or 'none'}"


def check_example(example: Any) -> None:
    """Checks that an example contains tensors, and that none of them is empty.

    Raises:
        ConfigurationError: It contains none, or an empty one.
    """
    tensors = [leaf for leaf in tree_leaves(example) if isinstance(leaf, Tensor)]
    if empty := [tuple(leaf.shape) for leaf in tensors if not leaf.numel()]:
        raise ConfigurationError(
            f"The example contains a tensor of shape {empty[0]}, which has no values. Pass real inputs, with at "
            "least one sample."
        )
    if not tensors:
        raise ConfigurationError(
            f"example={example!r:.200} contains no tensor. Pass what the network is called with: a batch of "
            "inputs, a tuple of arguments, or a dictionary of keyword arguments."
        )


def example_of(module: nn.Module, batch: Any = None) -> Any:
    """The inputs that a LightningModule is called with.

    Args:
        module: The network. Its ``example_input_array`` is used if it is set.
        batch: A batch of the data: the inputs, or a list or tuple that begins with them.

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
            "The network is called on an example of its inputs, but they could not be found"
            + (" without data" if batch is None else f" in a batch of type {type(batch).__name__}")
            + ". Set self.example_input_array in the LightningModule: a tensor, a tuple of arguments, or a "
            "dictionary of keyword arguments of forward."
        )
    check_example(example)
    return example


def to_device_of(module: nn.Module, example: Any) -> Any:
    """Copies an example to the device of a network."""
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    return tree_map(lambda leaf: leaf.detach().to(device).clone() if isinstance(leaf, Tensor) else leaf, example)


def with_noise(example: Any) -> Any:
    """The example with normal noise in its floating-point tensors."""
    generator = torch.Generator().manual_seed(0)

    def disturbed(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.is_floating_point()):
            return leaf
        return leaf + torch.randn(leaf.shape, generator=generator).to(leaf)

    return tree_map(disturbed, example)


def samples_in(example: Any) -> int:
    """The batch size of an example: the length of the first tensor with dimensions; 0 if it has none."""
    sizes = [leaf.shape[0] for leaf in tree_leaves(example) if isinstance(leaf, Tensor) and leaf.dim()]
    return sizes[0] if sizes else 0


def resized(example: Any, samples: int) -> Any:
    """Repeats or shortens an example to another batch size.

    Args:
        example: Tensors with the samples along the first dimension. Tensors of another length stay.
        samples: The batch size, at least 1.
    """
    batch = samples_in(example)

    def changed(leaf: Any) -> Any:
        if not (isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == batch and batch):
            return leaf
        places: Sequence[int] = [place % batch for place in range(samples)]
        return leaf[places].contiguous()

    return tree_map(changed, example)

"""A ticket as a network whose linear layers skip the zeros, where that is faster on this machine."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.channels import copy_of, outputs_of, resized
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.dense import masked_and_example
from lightning_lottery.export.inputs import watched
from lightning_lottery.export.measure import FASTER, durations
from lightning_lottery.export.sparse_linear import (
    SemiStructuredLinear,
    SparseLinear,
    has_two_of_four,
    is_on_gpu,
)
from lightning_lottery.tickets import Ticket

# Above this density, nothing is tried: values of 32 bits and their indices would take more space than the matrix.
_MOST = 0.5
# Below this fraction of used inputs, it may be faster to copy those before they are multiplied.
_FEW = 0.75
_TURNS, _SECONDS = 7, 0.02


@torch.inference_mode(False)
def sparse(model: nn.Module, ticket: Ticket | str | Path | None, example: Any) -> nn.Module:
    """Replaces linear layers by sparse ones where a measurement on this machine shows that they are faster.

    The weights are those that the network has now, with the ticket's masks. Each linear layer with a density of at
    most 50 % is timed as it is and as :class:`SparseLinear`, on its inputs in a call with the example, so that the
    result depends on the batch size of the example. On NVIDIA GPUs, layers with 2 of 4 weights (:class:`NofM`) are
    also tried as :class:`SemiStructuredLinear`, which is untested. Layers stay dense where they are at least as
    fast, where they have hooks or nothing calls them, and where the outputs of the network would differ.

    Args:
        model: The network, for example a LightningModule after its fit, or the result of :func:`compact`. It is
            not changed.
        ticket: The ticket, or the path of its file; ``None`` for a network that needs no masks, such as the result
            of :func:`compact`.
        example: Real inputs that the network is called with: a tensor with the samples along its first dimension,
            a tuple of arguments, or a dictionary of keyword arguments.

    Returns:
        A copy in evaluation mode, on the same device, for inference. It belongs to no Trainer. To load it with
        ``torch.load(path, weights_only=False)``, this package must be installed if any layer is sparse.

    Raises:
        ConfigurationError: The network cannot be copied, or fails on the example.
        ExportError: The outputs contain no finite number.
        TicketError: The ticket does not fit the network.
    """
    masked, example = masked_and_example(model, ticket, example)
    # Tensors of a single sample are contiguous in any memory format.
    expected = Expected.of(copy_of(masked), [example], [resized(example, 2)])
    return with_sparse_layers(masked, [example], expected)


def with_sparse_layers(network: nn.Module, examples: Sequence[Any], expected: Expected) -> nn.Module:
    """A copy of a network with sparse layers where they are faster.

    Args:
        network: The network, in evaluation mode. It is neither changed nor called.
        examples: What it is called with, on its device. The geometric mean of the gains for each of them counts.
        expected: The outputs with which the result must agree.

    Raises:
        ConfigurationError: The network fails on an example.
    """
    made, tried = copy_of(network), copy_of(network)
    for name in _candidates(tried, examples):
        layer = tried.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        # The inputs come from the layers before, as they are now: sparse ones give them in another memory format.
        faster = _fastest(layer, [_inputs(tried, name, example) for example in examples])
        if faster is layer:
            continue
        tried = _with_layer(tried, layer, faster)
        if expected.agrees(tried):
            made = _with_layer(made, made.get_submodule(name), faster)
        else:
            tried = _with_layer(tried, faster, layer)
    return made


def sparse_layers(network: nn.Module) -> list[str]:
    """The names of the sparse layers of a network."""
    kinds = (SparseLinear, SemiStructuredLinear)
    return [name for name, layer in network.named_modules() if isinstance(layer, kinds)]


def _candidates(network: nn.Module, examples: Sequence[Any]) -> list[str]:
    """The linear layers that can be replaced and that all examples reach, in the order of their calls."""
    layers = {name: layer for name, layer in network.named_modules() if _can_be_replaced(layer)}
    called: list[dict[str, None]] = []
    for example in examples:
        called.append({})
        with watched(layers, lambda name, _: called[-1].setdefault(name)):
            outputs_of(network, example)
    return [name for name in called[0] if all(name in names for names in called)]


def _can_be_replaced(layer: nn.Module) -> bool:
    """Whether a layer is linear, with enough zeros. A subclass may do something else, and so may hooks."""
    if type(layer) is not nn.Linear or any(
        vars(layer).get(key) for key in ("_forward_hooks", "_forward_pre_hooks")
    ):
        return False
    weights = layer.weight.numel()
    return weights > 0 and bool(layer.weight.count_nonzero() <= _MOST * weights)


def _inputs(network: nn.Module, name: str, example: Any) -> list[Tensor]:
    """The inputs of all calls of a layer in a call of the network."""
    inputs: list[Tensor] = []
    with watched({name: network.get_submodule(name)}, lambda _, seen: inputs.append(seen)):
        outputs_of(network, example)
    return inputs


class _Calls(nn.Module):
    """Calls a layer with several inputs, one after the other."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, *inputs: Tensor) -> None:
        for each in inputs:
            self.layer(each)


def _fastest(layer: nn.Linear, examples: Sequence[Sequence[Tensor]]) -> nn.Module:
    """The fastest among a layer and its replacements.

    Args:
        layer: The layer.
        examples: For each example, the inputs of all calls of the layer.
    """
    candidates = [layer, *_replacements(layer, examples)]
    if len(candidates) == 1:
        return layer
    calls = [_Calls(candidate) for candidate in candidates]
    seconds = [durations(calls, tuple(inputs), _TURNS, _SECONDS) for inputs in examples]

    def speedup(place: int) -> float:
        return geometric_mean(median(a / b for a, b in zip(own[0], own[place], strict=True)) for own in seconds)

    best = max(range(1, len(candidates)), key=speedup)
    return candidates[best] if speedup(best) >= FASTER else layer


def _replacements(layer: nn.Linear, examples: Sequence[Sequence[Tensor]]) -> list[nn.Module]:
    """The replacements of a layer that run here."""
    weight, bias = layer.weight, layer.bias
    kinds: list[Callable[[], nn.Module]] = [lambda: SparseLinear(weight, bias)]
    if weight.ne(0).any(dim=0).sum() <= _FEW * weight.shape[1]:
        kinds.append(lambda: SparseLinear(weight, bias, select=True))
    if is_on_gpu(weight) and has_two_of_four(weight):
        kinds.append(lambda: SemiStructuredLinear(weight, bias))
    made = []
    for make in kinds:
        # PyTorch may have no such product for this type and device.
        with suppress(RuntimeError, NotImplementedError, ValueError), torch.no_grad():
            candidate = make().eval()
            for inputs in examples:
                _Calls(candidate)(*inputs)
            made.append(candidate)
    return made


def _with_layer(network: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replaces a layer wherever a network has it, in place. Returns the network, which may be the layer itself."""
    if network is old:
        return new
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if layer is old:
            parent, _, key = name.rpartition(".")
            setattr(network.get_submodule(parent), key, new)
    return network

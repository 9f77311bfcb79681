"""A ticket as a network whose linear layers skip the zeros, where that is faster on this machine."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.channels import copy_of, outputs_of
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.dense import masked_and_example
from lightning_lottery.export.inputs import recorded_inputs
from lightning_lottery.export.measure import FASTER, durations
from lightning_lottery.export.sparse_linear import SemiStructuredLinear, SparseLinear, has_two_of_four
from lightning_lottery.tickets import Ticket

# Above this density, sparse products were slower on every machine that was measured.
_MOST = 0.5
# Below this fraction of used inputs, it may be faster to copy those before they are multiplied.
_FEW = 0.75
_TURNS, _SECONDS = 7, 0.02


@torch.inference_mode(False)
def sparse(model: nn.Module, ticket: Ticket | str | Path | None, example: Any) -> nn.Module:
    """Replaces linear layers by sparse ones where a measurement on this machine shows that they are faster.

    The weights are those that the network has now, with the ticket's masks. Each linear layer with a density of at
    most 50 % is timed as it is and as :class:`SparseLinear`, on its inputs in a call with the example, so that the
    result depends on the batch size of the example. On NVIDIA GPUs, layers with 2 of 4 weights
    (:class:`NofM`) are also tried with :class:`SemiStructuredLinear`, which is untested. Layers stay
    dense where they are at least as fast, where nothing calls them (something else reads their weights), and where
    the outputs of the network would differ.

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
        ConfigurationError: The network fails on the example.
        ExportError: The outputs contain no finite number.
        TicketError: The ticket does not fit the network.
    """
    masked, example = masked_and_example(model, ticket, example)
    return with_sparse_layers(masked, [example])


def with_sparse_layers(masked: nn.Module, examples: Sequence[Any]) -> nn.Module:
    """A copy of a network with sparse layers where they are faster.

    Args:
        masked: The network, in evaluation mode. It is not changed.
        examples: What it is called with, on its device. The geometric mean of the gains for each of them counts.

    Raises:
        ConfigurationError: The network fails on an example.
        ExportError: The outputs contain no finite number.
    """
    expected = Expected.of(masked, examples)
    network = copy_of(masked)
    for name in _candidates(network, examples):
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        # The inputs come from the layers before, as they are now: sparse ones give them in another memory format.
        faster = _fastest(layer, [_inputs(network, name, example) for example in examples])
        changed = _with_layer(network, layer, faster)
        network = changed if faster is layer or expected.agrees(changed) else _with_layer(changed, faster, layer)
    return network


def sparse_layers(network: nn.Module) -> list[str]:
    """The names of the sparse layers of a network."""
    kinds = (SparseLinear, SemiStructuredLinear)
    return [name for name, layer in network.named_modules() if isinstance(layer, kinds)]


def _candidates(network: nn.Module, examples: Sequence[Any]) -> list[str]:
    """The names of the linear layers that can be replaced, in the order in which they are called."""
    layers = {
        name: layer
        for name, layer in network.named_modules()
        # A subclass may do something else.
        if type(layer) is nn.Linear and layer.weight.count_nonzero() <= _MOST * layer.weight.numel()
    }
    with recorded_inputs(layers) as inputs:
        outputs_of(network, examples[0])
    return list(inputs)


def _inputs(network: nn.Module, name: str, example: Any) -> Tensor:
    """The inputs of a layer in a call of the network."""
    with recorded_inputs({name: network.get_submodule(name)}) as inputs:
        outputs_of(network, example)
    return inputs[name]


def _fastest(layer: nn.Linear, inputs: Sequence[Tensor]) -> nn.Module:
    """The fastest among a layer and its replacements."""
    candidates = [layer, *_replacements(layer, inputs)]
    if len(candidates) == 1:
        return layer
    seconds = [durations(candidates, (tensor,), _TURNS, _SECONDS) for tensor in inputs]

    def speedup(place: int) -> float:
        return geometric_mean(median(a / b for a, b in zip(own[0], own[place], strict=True)) for own in seconds)

    best = max(range(1, len(candidates)), key=speedup)
    return candidates[best] if speedup(best) >= FASTER else layer


def _replacements(layer: nn.Linear, inputs: Sequence[Tensor]) -> list[nn.Module]:
    """The replacements of a layer that run here."""
    weight, bias = layer.weight, layer.bias
    kinds: list[Callable[[], nn.Module]] = [lambda: SparseLinear(weight, bias)]
    if weight.ne(0).any(dim=0).sum() <= _FEW * weight.shape[1]:
        kinds.append(lambda: SparseLinear(weight, bias, select=True))
    if _is_on_gpu(weight) and has_two_of_four(weight):
        kinds.append(lambda: SemiStructuredLinear(weight, bias))
    made = []
    for make in kinds:
        # PyTorch may have no such product for this type and device.
        with suppress(RuntimeError, NotImplementedError, ValueError):
            candidate = make().eval()
            with torch.no_grad():
                for tensor in inputs:
                    candidate(tensor)
            made.append(candidate)
    return made


def _is_on_gpu(weight: Tensor) -> bool:
    return weight.is_cuda


def _with_layer(network: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Replaces a layer wherever a network has it, in place. Returns the network, which may be the layer itself."""
    if network is old:
        return new
    for name, layer in list(network.named_modules(remove_duplicate=False)):
        if layer is old:
            parent, _, key = name.rpartition(".")
            setattr(network.get_submodule(parent), key, new)
    return network

"""Criteria that use gradients: of the loss, or of the flow through the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import check_integer, make_plain
from lightning_lottery.pruning.criteria import Context, Criterion, wide


@dataclass(frozen=True)
class _Batches(Criterion):
    """A criterion that uses batches of the training loader.

    Attributes:
        batches: Number of batches, at least 1.
    """

    batches: int = 1

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("batches", self.batches, 1, f"{type(self).__name__}(batches=1)")


@dataclass(frozen=True)
class SNIP(_Batches):
    """|w · dL/dw|, connection sensitivity (Lee et al. 2019, arXiv:1810.02340).

    The gradient is the mean over ``batches``. The paper uses one batch, before training (``prune_at_init=True``).
    """

    def score(self, context: Context) -> dict[str, Tensor]:
        gradients = _mean_gradients(context, self.batches)
        return {name: (wide(weight) * gradients[name]).abs() for name, weight in context.weights.items()}


@dataclass(frozen=True)
class Taylor(_Batches):
    """The mean over batches of (w · dL/dw)² (Molchanov et al. 2019, arXiv:1906.10771, equation 8)."""

    batches: int = 10

    def score(self, context: Context) -> dict[str, Tensor]:
        batches = context.data.batches(self.batches)
        scores = {name: torch.zeros_like(wide(weight)) for name, weight in context.weights.items()}
        for batch in batches:
            for name, gradient in _gradients(context, context.data.loss(batch)).items():
                scores[name] += (wide(context.weights[name]) * wide(gradient)).square() / len(batches)
        return context.data.average(scores)


@dataclass(frozen=True)
class GraSP(_Batches):
    """w · Hg, the gradient flow that a weight carries (Wang et al. 2020, arXiv:2002.07376).

    g is the gradient with respect to the surviving weights and H the Hessian of the loss, both averaged over
    ``batches``. Weights whose removal strengthens the flow are removed first. The paper divides the logits by a
    temperature of 200; do that in your loss.
    """

    def score(self, context: Context) -> dict[str, Tensor]:
        batches, gradients = context.data.batches(self.batches), _mean_gradients(context, self.batches)
        flows = {name: gradient * context.masks[name] for name, gradient in gradients.items()}
        products = {name: torch.zeros_like(wide(weight)) for name, weight in context.weights.items()}
        for batch in batches:
            with torch.enable_grad():
                each = _gradients(context, context.data.loss(batch), create_graph=True)
                flow = torch.stack([(wide(each[name]) * flows[name]).sum() for name in each]).sum()
            for name, product in _gradients(context, flow).items():
                products[name] += wide(product) / len(batches)
        products = context.data.average(products)
        return {name: wide(weight) * products[name] for name, weight in context.weights.items()}


@dataclass(frozen=True)
class SynFlow(Criterion):
    """Synaptic flow |w · dR/d|w||, without data (Tanaka et al. 2020, arXiv:2006.05467).

    R is the sum of the network's outputs for an input of ones, with the absolute values of all parameters and in
    evaluation mode. It is computed in double precision, where deep networks do not overflow. The input has the
    shape of ``example_input_array``, or else of one sample of the training data.

    Attributes:
        steps: Number of times that one pruning scores and removes, at least 1. The paper uses 100, so that no
            layer becomes empty.
    """

    steps: int = 100

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("steps", self.steps, 1, f"{type(self).__name__}(steps=1)")

    @property
    def iterations(self) -> int:
        return self.steps

    def score(self, context: Context) -> dict[str, Tensor]:
        """Scores every prunable weight; see :meth:`Criterion.score`.

        Raises:
            ConfigurationError: The network does not accept an input of ones.
        """
        values, ones = _positive(context.module), _double(context.data.ones())
        for name, mask in context.masks.items():
            values[name] = (values[name] * mask).requires_grad_()
        names = list(context.weights)
        try:
            with torch.enable_grad(), _evaluation(context.module):
                given = tree_leaves(functional_call(context.module, values, (ones,)))
                flow = torch.stack([leaf.sum() for leaf in given if isinstance(leaf, Tensor)]).sum()
                gradients = torch.autograd.grad(flow, [values[name] for name in names], allow_unused=True)
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            raise ConfigurationError(
                f"SynFlow calls the network's forward with one input of ones, of shape {tuple(ones.shape)} and in "
                f"double precision, and that failed: {error}. forward must accept a single tensor of numbers and "
                "stay in double precision. Set self.example_input_array in the LightningModule if inputs have "
                "another shape, or use another criterion."
            ) from error
        return {
            name: torch.zeros_like(values[name]) if gradient is None else (values[name] * gradient).abs().detach()
            for name, gradient in zip(names, gradients, strict=True)
        }


def _gradients(context: Context, value: Tensor, create_graph: bool = False) -> dict[str, Tensor]:
    """The gradients of a scalar with respect to all prunable weights; zeros if it does not depend on one."""
    weights = list(context.weights.values())
    if not value.requires_grad:
        return {name: torch.zeros_like(weight) for name, weight in context.weights.items()}
    found = torch.autograd.grad(value, weights, create_graph=create_graph, allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(context.weights.items(), found, strict=True)
    }


def _mean_gradients(context: Context, number: int) -> dict[str, Tensor]:
    batches = context.data.batches(number)
    total = {name: torch.zeros_like(wide(weight)) for name, weight in context.weights.items()}
    for batch in batches:
        for name, gradient in _gradients(context, context.data.loss(batch)).items():
            total[name] += wide(gradient) / len(batches)
    return context.data.average(total)


def _positive(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers in double precision, finite numbers replaced by their absolute values."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: _magnitudes(tensor.detach()) for name, tensor in tensors}


def _magnitudes(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return torch.where(tensor.isinf(), tensor, tensor.abs()).double()  # -inf belongs to a causal mask


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


@contextmanager
def _evaluation(module: nn.Module) -> Iterator[None]:
    training = {layer: layer.training for layer in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for layer, flag in training.items():
            layer.training = flag

"""Counts the floating-point operations of a training batch while it trains."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lightning_lottery.masks import is_sharded
from lightning_lottery.storage import BatchFlops

# Operations with two factors. A linear layer multiplies x W forward, and backward g W for the gradient of x and
# g x for the gradient of W. Only the last one does not contain W.
_PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_scaled_mm"}
# Operations whose backward pass is one operation that also receives the weight.
_CONVOLUTIONS = {"convolution", "_convolution", "convolution_backward"}
# Fused operations with weights that PyTorch has no formula for.
_UNKNOWN = {"mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn"}


class FlopsOfBatch:
    """Counts what the present batch multiplies, forward and backward. It changes no result.

    Args:
        masked: The masked parameters by name.
    """

    def __init__(self, masked: Mapping[str, nn.Parameter]) -> None:
        self._counter = _Counter(masked)
        self._stack = ExitStack()
        self._stack.enter_context(self._counter)

    @staticmethod
    def can_count(module: nn.Module) -> bool:
        """Whether counting works: not for sharded networks, and compiled ones would run uncompiled meanwhile."""
        # torch.compile has no public sign of a compiled layer; both names exist since torch 2.2. Lightning unpacks
        # a compiled LightningModule, and remembers that here.
        layers = module.modules()
        is_compiled = any(hasattr(layer, "_orig_mod") or layer._compiled_call_impl is not None for layer in layers)
        is_compiled |= getattr(module, "_compiler_ctx", None) is not None
        return not is_compiled and not any(map(is_sharded, module.parameters()))

    def stop(self) -> None:
        """Stops counting. May be called twice."""
        self._stack.close()

    @property
    def has_gradients(self) -> bool:
        """Whether the batch had a backward pass; ``training_step`` may skip it."""
        return self._counter.has_gradients

    def result(self, processes: int) -> BatchFlops:
        """The operations of the batch; 0 if some of them have no formula.

        Args:
            processes: The number of processes, each of which trains such a batch.
        """
        if self._counter.has_unknown:
            return BatchFlops()
        own = {name: processes * count for name, count in self._counter.by_parameter.items()}
        return BatchFlops(processes * self._counter.total, own)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation, and counts those for which PyTorch has a formula.

    PyTorch's own ``FlopCounterMode`` also follows modules, for which it needs hooks that fail under
    ``torch.autograd.grad``. This one finds the parameter of an operation by the memory of its factors.

    Attributes:
        total: The operations so far.
        by_parameter: Those with a masked parameter or for its gradient, by name.
        has_gradients: Whether a backward pass has multiplied anything.
        has_unknown: Whether there were operations without a formula.
    """

    supports_higher_order_operators = True

    def __init__(self, masked: Mapping[str, nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._masked = masked
        self._names = {_memory(parameter): name for name, parameter in masked.items()}
        self._kept: list[Tensor] = []
        # The names of weights that forward passes have multiplied, by the size of the product, the latest last.
        self._multiplied: dict[int, list[str]] = {}
        self.total = 0
        self.by_parameter: Counter[str] = Counter()
        self.has_gradients = self.has_unknown = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # Not so for higher-order operations, such as flex attention. PyTorch has no public name; since torch 2.0.
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        # The key of the formulas. PyTorch has no public name for it; since torch 2.0.
        operation = func._overloadpacket
        formula: Any = flop_registry.get(operation)
        if formula is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        count = 0 if formula is None else _operations(operation, formula, args, kwargs, out)
        self._count(operation.__name__, count, self._weight_in((args, kwargs)), out)
        return out

    def _weight_in(self, arguments: Any) -> str | None:
        """The name of the first masked parameter among the arguments of an operation."""
        memories = (_memory(leaf) for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor))
        return next((self._names[memory] for memory in memories if memory in self._names), None)

    def _count(self, operation: str, count: int, weight: str | None, out: Any) -> None:
        # Whether a backward pass is running. PyTorch has no public name for it; since torch 2.0.
        is_backward = torch._C._current_graph_task_id() != -1
        self.total += count
        self.has_gradients |= is_backward and count > 0
        self.has_unknown |= operation in _UNKNOWN
        if operation in _PRODUCTS:
            if weight is not None and not is_backward:
                self._multiplied.setdefault(count, []).append(weight)
            elif weight is None and is_backward and self._multiplied.get(count):
                # The gradient of the weight that was multiplied last, since backward passes go backwards.
                weight = self._multiplied[count].pop()
        if weight is None:
            return
        if operation in _PRODUCTS or operation in _CONVOLUTIONS:
            self.by_parameter[weight] += count
        elif operation != "embedding":
            self._follow(weight, out)

    def _follow(self, weight: str, out: Any) -> None:
        """Remembers what was made from a weight, such as its copy in lower precision."""
        shape = sorted(self._masked[weight].shape)
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and sorted(made.shape) == shape:
                self._kept.append(made)  # it must live on, since memory is reused
                self._names.setdefault(_memory(made), weight)


def _operations(operation: Any, formula: Any, args: Any, kwargs: Any, out: Any) -> int:
    """The number of operations by PyTorch's formulas."""
    if operation is not torch.ops.aten.convolution_backward:
        return int(formula(*args, **kwargs, out_val=out))
    # PyTorch's formula ignores groups. Each gradient takes as many operations as the forward pass.
    gradient, images, kernel, _, *options, output_mask = args
    forward: Any = flop_registry[torch.ops.aten.convolution]
    return int(forward(images, kernel, None, *options, out_val=gradient)) * int(sum(output_mask[:2]))


def _memory(tensor: Tensor) -> int | None:
    with suppress(RuntimeError):  # sparse tensors have none
        return tensor.untyped_storage().data_ptr()
    return None

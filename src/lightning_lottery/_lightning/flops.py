"""Counts the floating-point operations of a training batch while it trains."""

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lightning_lottery.masks import is_sharded
from lightning_lottery.storage import BatchFlops

# Matrix products. Their backward pass has one with the weight, and one without it, for the gradient of the weight.
_PRODUCTS = {"mm", "addmm", "_scaled_mm"}
# Their backward pass has one operation, with the weight. Products of activations with each other, as in attention,
# are not among these: they are never sparse.
_CONVOLUTIONS = {"convolution", "_convolution", "convolution_backward"}


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
        # torch.compile has no public sign of a compiled layer. Both names exist since torch 2.2.
        layers = module.modules()
        is_compiled = any(hasattr(layer, "_orig_mod") or layer._compiled_call_impl is not None for layer in layers)
        return not is_compiled and not any(map(is_sharded, module.parameters()))

    def stop(self) -> None:
        """Stops counting. May be called twice."""
        self._stack.close()

    def result(self, processes: int) -> BatchFlops:
        """The operations of the batch.

        Args:
            processes: The number of processes, each of which trains such a batch.
        """
        own = {name: processes * count for name, count in self._counter.by_parameter.items()}
        return BatchFlops(processes * self._counter.get_total_flops(), own)


class _Counter(FlopCounterMode):
    """Also counts the operations of each masked parameter, by the memory of the tensors that are multiplied."""

    def __init__(self, masked: Mapping[str, nn.Parameter]) -> None:
        super().__init__(display=False)
        self._masked = masked
        self._names = {_memory(parameter): name for name, parameter in masked.items()}
        self._kept: list[Tensor] = []
        self._without_gradient: Counter[str] = Counter()
        self.by_parameter: Counter[str] = Counter()

    # Called for every operation. FlopCounterMode offers nothing public that sees tensors; since torch 2.1.
    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        before, add = self.get_total_flops(), cast(Any, super()._count_flops)
        add(func_packet, out, args, kwargs)
        memories = (_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor))
        name = next((self._names[memory] for memory in memories if memory in self._names), None)
        if name is None:
            return out
        operation, count = func_packet.__name__, self.get_total_flops() - before
        if operation in _PRODUCTS:
            self.by_parameter[name] += 2 * count if self._is_first_with_gradient(name) else count
        elif operation in _CONVOLUTIONS:
            self.by_parameter[name] += count
        else:
            self._follow(name, out)
        return out

    def _is_first_with_gradient(self, name: str) -> bool:
        """Whether a product belongs to a forward pass whose gradient of the weight was not counted yet."""
        if not torch.is_grad_enabled():
            # Perhaps the first forward pass of a checkpoint, which is repeated in the backward pass.
            self._without_gradient[name] += not self.mod_tracker.is_bw
            return False
        if self.mod_tracker.is_bw:
            if not self._without_gradient[name]:
                return False
            self._without_gradient[name] -= 1
        return self._masked[name].requires_grad

    def _follow(self, name: str, out: Any) -> None:
        """Remembers what was made from a weight, such as its copy in lower precision."""
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and made.numel() == self._masked[name].numel():
                self._kept.append(made)  # it must live on, since memory is reused
                self._names.setdefault(_memory(made), name)


def _memory(tensor: Tensor) -> int | None:
    with suppress(Exception):  # tensors of some classes have none
        return tensor.untyped_storage().data_ptr()
    return None

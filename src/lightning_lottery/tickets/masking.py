"""Keeps pruned weights at exactly zero while a network trains."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)

from lightning_lottery.attributes import replace_attribute
from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import Masks, is_sharded, local, place
from lightning_lottery.tickets.ticket import Ticket

# With zero weights, zero state and zero gradients, these optimizers leave a weight at zero, even with weight
# decay, since the step of a weight depends on that weight alone. A subclass may differ, so the type must be exact.
_ELEMENTWISE = (ASGD, SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop, Rprop)


def masked_parameters(ticket: Ticket, module: nn.Module) -> tuple[dict[str, nn.Parameter], Masks]:
    """The parameters of a network that a ticket masks, and the masks on their devices, by name."""
    present = dict(module.named_parameters())
    parameters = {name: present[name] for name in ticket.masks}
    return parameters, {name: place(ticket.masks[name], p) for name, p in parameters.items()}


def _calls_hooks(optimizer: Optimizer) -> bool:
    """Whether an optimizer calls its step hooks. A wrapper may never have called ``Optimizer.__init__``."""
    # Optimizer.__init__ marks the step of the class and creates the hook dictionaries. No public API shows this.
    is_marked = getattr(type(optimizer).step, "hooked", False)
    return bool(is_marked) and "_optimizer_step_post_hooks" in vars(optimizer)


class Masking:
    """Applies masks to parameters, their gradients and their optimizer state.

    Parameters are neither wrapped nor renamed. For optimizers with an elementwise step it is enough to mask the
    gradients. After the step of any other optimizer, the weights are masked too.

    Args:
        parameters: The prunable parameters by name.
        masks: A boolean mask for each parameter to mask.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
        # Dense layers are skipped, so that the dense round costs nothing.
        here = {name: local(mask) for name, mask in masks.items()}
        self._sparse = {name: (parameters[name], mask) for name, mask in here.items() if not bool(mask.all())}
        self._parameters: list[Tensor] = [parameter for parameter, _ in self._sparse.values()]
        self._are_sharded = any(map(is_sharded, self._parameters))
        # One fused multiplication over all parameters needs masks of their type and layout.
        self._factors = [torch.empty_like(local(p.detach())).copy_(mask) for p, mask in self._sparse.values()]
        self._undo: list[Callable[[], None]] = []

    def watch(self, optimizers: Iterable[Optimizer], elementwise: bool = True, by_hand: bool = False) -> None:
        """Masks the weights after every step of optimizers whose step is not elementwise.

        Args:
            optimizers: The optimizers.
            elementwise: ``False`` if anything besides the optimizer may change weights or gradients.
            by_hand: Whether the LightningModule may step optimizers without Lightning, whose hooks otherwise mask
                gradients.
        """
        for optimizer in optimizers:
            is_elementwise = elementwise and type(optimizer) in _ELEMENTWISE
            if self._sparse and (by_hand or not is_elementwise):
                self._undo += self._watch_steps(optimizer, by_hand, not is_elementwise)

    def _watch_steps(self, optimizer: Optimizer, before: bool, after: bool) -> list[Callable[[], None]]:
        """Masks gradients before, or weights after, every step of an optimizer."""
        if _calls_hooks(optimizer):
            handles = []
            if before:
                handles.append(optimizer.register_step_pre_hook(lambda *_: self.mask_gradients()))
            if after:
                handles.append(optimizer.register_step_post_hook(lambda *_: self.mask_weights()))
            return [handle.remove for handle in handles]
        step = optimizer.step

        @wraps(step)  # schedulers mark it with an attribute
        def masked_step(*args: Any, **kwargs: Any) -> Any:
            self.mask_gradients()
            loss = step(*args, **kwargs)
            self.mask_weights()
            return loss

        return [replace_attribute(optimizer, "step", masked_step)]

    def hold(self, optimizers: Sequence[Optimizer], elementwise: bool, by_hand: bool) -> None:
        """Sets pruned weights and their optimizer state to zero, and keeps them at zero in every step.

        Gradients must be masked before every step, with :meth:`mask_gradients`.

        Args:
            optimizers: The optimizers, with the state that the training starts from.
            elementwise: See :meth:`watch`.
            by_hand: See :meth:`watch`.
        """
        self.watch(optimizers, elementwise, by_hand)
        self.mask_state(optimizers)
        self.mask_weights()

    @property
    def is_sparse(self) -> bool:
        """Whether any weight is pruned."""
        return bool(self._sparse)

    def release(self) -> None:
        """Removes the hooks from the optimizers, and frees the masks. Nothing is masked afterwards."""
        while self._undo:
            self._undo.pop()()
        self._sparse, self._parameters, self._factors = {}, [], []

    def mask_gradients(self) -> None:
        """Sets the gradients of pruned weights to zero."""
        if not self._parameters:  # also called in every step of the dense round
            return
        pairs = [(p.grad, f) for p, f in zip(self._parameters, self._factors, strict=True) if p.grad is not None]
        grads = [local(grad) for grad, _ in pairs] if self._are_sharded else [grad for grad, _ in pairs]
        if not grads:
            return
        with torch.no_grad():
            torch._foreach_mul_(grads, [factor for _, factor in pairs])

    @torch.no_grad()
    def mask_weights(self) -> None:
        """Sets pruned weights to zero."""
        if self._parameters:
            torch._foreach_mul_([local(parameter) for parameter in self._parameters], self._factors)

    @torch.no_grad()
    def mask_state(self, optimizers: Iterable[Optimizer]) -> None:
        """Sets the optimizer state of pruned weights, such as moments, to zero."""
        for optimizer in optimizers:
            for parameter, mask in self._sparse.values():
                for value in getattr(optimizer, "state", {}).get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        local(value).masked_fill_(~mask, 0)

    def nonzero(self) -> dict[str, int]:
        """Counts pruned weights that are not exactly zero, by parameter; parameters without any are left out.

        NaN does not count: when training has diverged, NaN gradients turn all weights into NaN.
        """
        moved = {}
        for name, (parameter, mask) in self._sparse.items():
            values = local(parameter.detach())
            if count := int((values.ne(0) & ~values.isnan() & ~mask).count_nonzero()):
                moved[name] = count
        return moved

    def check(self) -> None:
        """Checks that every pruned weight is exactly zero.

        Raises:
            TrainingError: A pruned weight is not zero; the message names its layer.
        """
        if moved := self.nonzero():
            name, count = next(iter(moved.items()))
            raise TrainingError(
                f"{count} pruned weights of {name!r} are no longer zero. Something besides the optimizer writes "
                "to them: a callback, or the LightningModule itself, for example to update a teacher. Leave such "
                f"parameters out of the masks (in a search, exclude={list(moved)})."
            )

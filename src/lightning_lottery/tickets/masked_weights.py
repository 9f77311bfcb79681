"""Masks with the weights under them: what a ticket consists of, and what its file contains."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import arithmetic, sharding
from lightning_lottery.tickets.round_id import TICKET_BRANCH, RoundId
from lightning_lottery.tickets.tensors import bytes_of, take_apart

Self = TypeVar("Self", bound="MaskedWeights")


@dataclass(frozen=True, eq=False, repr=False)
class MaskedWeights:
    """Masks with the weights under them. :class:`Ticket` describes the arguments and attributes."""

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    round: int = 0
    branch: str = TICKET_BRANCH
    provenance: dict[str, str] = field(default_factory=dict)
    following: Sequence[str] = ()

    def __post_init__(self) -> None:
        if unknown := [name for name in self.following if name not in self.masks]:
            raise TicketError(f"following contains {unknown}, but the ticket has no masks of these names.")
        weights = dict(self.weights)
        for name, mask in self.masks.items():
            if name not in weights:
                raise TicketError(f"There is a mask for {name!r}, but no weight of that name.")
            if not isinstance(mask, Tensor):
                raise TicketError(f"The mask of {name!r} is {type(mask).__name__}; it must be a boolean tensor.")
            if mask.dtype != torch.bool or mask.shape != weights[name].shape:
                raise TicketError(
                    f"The mask of {name!r} is {mask.dtype} of shape {tuple(mask.shape)}; it must be boolean "
                    f"(write mask.bool()), of the weight's shape {tuple(weights[name].shape)}."
                )
            kept = sharding.local(weights[name]).masked_fill(~sharding.local(mask), 0)
            weights[name] = sharding.like(kept, weights[name])
        object.__setattr__(self, "weights", weights)

    @classmethod
    def masked(cls: type[Self], **fields: Any) -> Self:
        """Makes an object of masks and weights that were checked before, with zeros for pruned weights.

        It checks nothing and copies nothing: copying all weights takes as long as reading them from a file.

        Args:
            fields: All fields by name.
        """
        made = object.__new__(cls)
        for name, value in fields.items():
            object.__setattr__(made, name, value)
        return made

    @property
    def id(self) -> RoundId:
        """The training that starts from this ticket."""
        return RoundId(self.round, self.branch)

    @property
    def prunable_masks(self) -> dict[str, Tensor]:
        """The masks that density counts: all except those of ``following``."""
        following = set(self.following)
        return {name: mask for name, mask in self.masks.items() if name not in following}

    @property
    def kept(self) -> int:
        """Number of surviving prunable weights."""
        return arithmetic.kept(self.prunable_masks)

    @property
    def prunable(self) -> int:
        """Number of prunable weights, surviving or not."""
        return arithmetic.prunable(self.prunable_masks)

    @property
    def density(self) -> float:
        """Kept / prunable, in (0, 1]."""
        return arithmetic.density(self.prunable_masks)

    def layer_densities(self) -> dict[str, float]:
        """The density of each prunable parameter, in [0, 1], by name."""
        masks = self.prunable_masks
        kept = sharding.count(list(masks.values()))
        counted = zip(masks.items(), kept, strict=True)
        return {name: number / mask.numel() if mask.numel() else 1.0 for (name, mask), number in counted}

    def to(self: Self, like: Mapping[str, Tensor]) -> Self:
        """Moves masks and weights to the devices of other tensors.

        Args:
            like: Tensors by name. Weights without such a tensor are moved to the device of the first one. Weights
                are sharded like these tensors.

        Returns:
            A ticket with the same values. Tensors that stay on their device are shared.
        """
        first = sharding.local(next(iter(like.values())))
        return self.mapped(lambda name, tensor: sharding.place(tensor, like.get(name, first)))

    def to_cpu(self: Self) -> Self:
        """Moves masks and weights to the CPU, unless they are sharded. Those on the CPU are shared."""
        return self.mapped(lambda _, tensor: tensor if sharding.is_sharded(tensor) else tensor.cpu())

    def mapped(self: Self, change: Callable[[str, Tensor], Tensor]) -> Self:
        """Moves every mask and weight, for example to another device.

        Args:
            change: Moves a tensor, given its name and the tensor. It must not change values.

        Returns:
            A ticket of the moved tensors. It shares memory with this one if they do.
        """
        masks = {name: change(name, mask) for name, mask in self.masks.items()}
        weights = {name: change(name, weight) for name, weight in self.weights.items()}
        return self.masked(**{**vars(self), "masks": masks, "weights": weights})

    def whole(self: Self, keep: bool = True) -> "Self | None":
        """Gathers a sharded ticket, one tensor after the other. Every process must call it.

        Args:
            keep: Whether this process needs the ticket.

        Returns:
            The ticket with plain tensors, on the CPU if it was sharded; ``None`` unless ``keep``.
        """
        if not any(map(sharding.is_sharded, self.weights.values())):
            return self if keep else None
        gathered: list[dict[str, Tensor]] = [{}, {}]
        for kind, tensors in zip(gathered, (self.masks, self.weights), strict=True):
            for name, tensor in tensors.items():
                full = sharding.whole(tensor)
                if keep:
                    kind[name] = full.cpu()
        return self.masked(**{**vars(self), "masks": gathered[0], "weights": gathered[1]}) if keep else None

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that differ between tickets with other masks or weights, except quantised ones."""
        digest = hashlib.sha256(arithmetic.fingerprint(self.masks).encode())
        for name in sorted(self.weights):
            weight = sharding.whole(self.weights[name])
            parts = {} if weight.is_quantized or weight.is_nested else take_apart(weight)[0]
            for part, tensor in sorted(parts.items()):
                digest.update(f"{name}:{part}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
                digest.update(bytes_of(tensor))
        return digest.hexdigest()[:16]

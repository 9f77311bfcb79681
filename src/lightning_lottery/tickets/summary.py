"""What a ticket is, in numbers: for its model card, and for people and scripts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_lottery.masks import arithmetic, count
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.round_id import RoundId
from lightning_lottery.tickets.tensors import values_of


@dataclass(frozen=True)
class LayerSummary:
    """One masked parameter.

    Attributes:
        shape: Its shape.
        kept: Number of surviving weights.
        prunable: Number of weights, surviving or not.
        density: kept / prunable, in [0, 1].
        is_counted: Whether density counts it; not if it only follows others (:class:`CoupledChannels`).
    """

    shape: tuple[int, ...]
    kept: int
    prunable: int
    density: float
    is_counted: bool


@dataclass(frozen=True)
class TicketSummary:
    """The numbers of a ticket.

    Attributes:
        round: The number of prunings behind the masks.
        branch: ``"ticket"``, ``"search"``, or the name of the control; see :class:`RoundId`.
        density: kept / prunable, in (0, 1].
        kept: Surviving prunable weights.
        prunable: Prunable weights, surviving or not.
        numbers: Numbers in all parameters and persistent buffers, pruned or not.
        numbers_kept: The same without pruned ones.
        dense_bytes: Bytes of all parameters and persistent buffers in memory.
        fingerprint: Differs between tickets with other masks or weights.
        masks_hash: Differs between tickets with other masks, as in the records of a run.
        is_trained: Whether the values are trained ones, and not those that training starts from; ``None`` if the
            ticket was made of something else, so that this is unknown.
        layers: The masked parameters by name.
        unmasked: The shapes of the other parameters and persistent buffers by name.
        provenance: How the ticket was found.
    """

    round: int
    branch: str
    density: float
    kept: int
    prunable: int
    numbers: int
    numbers_kept: int
    dense_bytes: int
    fingerprint: str
    masks_hash: str
    is_trained: bool | None
    layers: dict[str, LayerSummary]
    unmasked: dict[str, tuple[int, ...]]
    provenance: dict[str, str]

    @property
    def id(self) -> RoundId:
        """The training that the ticket is for."""
        return RoundId(self.round, self.branch)

    @property
    def meaning(self) -> str:
        """A sentence that says whether the values are trained ones, or those to start from."""
        if self.is_trained:
            return "The values are trained ones."
        if self.is_trained is False:
            return f"Not trained: the values are those that the training of round {self.round} starts from."
        if "transfer" in self.provenance:
            return "The masks were carried over from another network, so that it may need training."
        return "The values are those of the network or file that the ticket was made from."

    @classmethod
    def of(cls, ticket: MaskedWeights) -> "TicketSummary":
        """Counts what is in a ticket that is not sharded."""
        kept = dict(zip(ticket.masks, count(list(ticket.masks.values())), strict=True))
        pruned = sum(mask.numel() - kept[name] for name, mask in ticket.masks.items())
        stored = [w if w.layout == torch.strided else values_of(w) for w in ticket.weights.values()]
        numbers = sum(weight.numel() for weight in stored)
        counted = ticket.prunable_masks
        layers = {
            name: LayerSummary(
                tuple(mask.shape), kept[name], mask.numel(), _share(kept[name], mask), name in counted
            )
            for name, mask in ticket.masks.items()
        }
        return cls(
            round=ticket.round,
            branch=ticket.branch,
            density=ticket.density,
            kept=ticket.kept,
            prunable=ticket.prunable,
            numbers=numbers,
            numbers_kept=numbers - pruned,
            dense_bytes=sum(weight.numel() * weight.element_size() for weight in stored),
            fingerprint=ticket.fingerprint,
            masks_hash=arithmetic.fingerprint(ticket.masks),
            is_trained=_is_trained(ticket.provenance),
            layers=layers,
            unmasked={name: tuple(w.shape) for name, w in ticket.weights.items() if name not in ticket.masks},
            provenance=ticket.provenance,
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def _share(kept: int, mask: Tensor) -> float:
    return kept / mask.numel() if mask.numel() else 1.0


def _is_trained(provenance: Mapping[str, str]) -> bool | None:
    if "transfer" in provenance or not ({"weights", "rewind"} & set(provenance)):
        return None
    return "weights" in provenance

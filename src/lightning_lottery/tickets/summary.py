"""What a ticket is, in numbers: for its model card, and for people and scripts."""

from dataclasses import asdict, dataclass
from typing import Any

from lightning_lottery.masks import arithmetic, count
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.tensors import values_of


@dataclass(frozen=True)
class LayerSummary:
    """One masked parameter.

    Attributes:
        shape: Its shape.
        kept: Number of surviving weights.
        prunable: Number of weights, surviving or not.
        density: kept / prunable, in [0, 1].
        counts: Whether density counts it; not if it only follows others (:class:`CoupledChannels`).
    """

    shape: tuple[int, ...]
    kept: int
    prunable: int
    density: float
    counts: bool


@dataclass(frozen=True)
class TicketSummary:
    """The numbers of a ticket.

    Attributes:
        round: The number of prunings behind the masks.
        branch: ``"ticket"``, or the name of the control.
        density: kept / prunable, in (0, 1].
        kept: Surviving prunable weights.
        prunable: Prunable weights, surviving or not.
        values: Numbers in all parameters and persistent buffers, pruned or not.
        values_kept: The same without pruned ones.
        dense_bytes: Bytes of all parameters and persistent buffers in memory.
        fingerprint: Differs between tickets with other masks or weights.
        masks_hash: Differs between tickets with other masks, as in the records of a run.
        layers: The masked parameters by name.
        provenance: How the ticket was found.
    """

    round: int
    branch: str
    density: float
    kept: int
    prunable: int
    values: int
    values_kept: int
    dense_bytes: int
    fingerprint: str
    masks_hash: str
    layers: dict[str, LayerSummary]
    provenance: dict[str, str]

    @classmethod
    def of(cls, ticket: MaskedWeights) -> "TicketSummary":
        """Counts what is in a ticket that is not sharded."""
        kept = dict(zip(ticket.masks, count(list(ticket.masks.values())), strict=True))
        pruned = sum(mask.numel() - kept[name] for name, mask in ticket.masks.items())
        stored = list(map(values_of, ticket.weights.values()))
        values = sum(weight.numel() for weight in stored)
        layers = {
            name: LayerSummary(
                tuple(mask.shape),
                kept[name],
                mask.numel(),
                kept[name] / mask.numel() if mask.numel() else 1.0,
                name not in ticket.following,
            )
            for name, mask in ticket.masks.items()
        }
        return cls(
            round=ticket.round,
            branch=ticket.branch,
            density=ticket.density,
            kept=ticket.kept,
            prunable=ticket.prunable,
            values=values,
            values_kept=values - pruned,
            dense_bytes=sum(weight.numel() * weight.element_size() for weight in stored),
            fingerprint=ticket.fingerprint,
            masks_hash=arithmetic.fingerprint(ticket.masks),
            layers=layers,
            provenance=ticket.provenance,
        )

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

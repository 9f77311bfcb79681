"""What two tickets have in common: their masks, and the signs of their values."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import kept
from lightning_lottery.plain import first_of
from lightning_lottery.tickets import Ticket, values_of


@dataclass(frozen=True)
class Overlap:
    """What two masks have in common, in one layer or in several.

    Attributes:
        prunable: Number of prunable weights.
        first: Survivors in the first mask.
        second: Survivors in the second mask.
        both: Survivors in both.
        expected_both: Mean of ``both`` for random masks with the same numbers of survivors in each layer.
        variance: Variance of ``both`` for such masks.
        same_sign: Survivors in both whose values have the same sign.
        expected_same_sign: Mean of ``same_sign`` if the signs of each ticket's survivors were shuffled within each
            layer.
    """

    prunable: int
    first: int
    second: int
    both: int
    expected_both: float
    variance: float
    same_sign: int
    expected_same_sign: float

    @property
    def iou(self) -> float:
        """Intersection over union (Jaccard index), in [0, 1]; 1 if both masks keep nothing."""
        union = self.first + self.second - self.both
        return self.both / union if union else 1.0

    @property
    def expected_iou(self) -> float:
        """Mean of ``iou`` for random masks, to second order in the deviation of ``both``.

        Its error is at most 0.25 / ``prunable``.
        """
        total, mean = self.first + self.second, self.expected_both
        if total == mean:
            return 1.0
        return mean / (total - mean) + self.variance * total / (total - mean) ** 3

    @property
    def sign_agreement(self) -> float | None:
        """Fraction of the survivors in both whose values have the same sign; ``None`` without such survivors."""
        return self.same_sign / self.both if self.both else None

    @property
    def expected_sign_agreement(self) -> float | None:
        """The same for shuffled signs."""
        return self.expected_same_sign / self.both if self.both else None

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        derived = ("iou", "expected_iou", "sign_agreement", "expected_sign_agreement")
        return {**asdict(self), **{name: getattr(self, name) for name in derived}}


@dataclass(frozen=True)
class TicketOverlap:
    """What two tickets have in common.

    Attributes:
        total: In all layers together.
        layers: In each layer that both have, by name.
        left_out: Masked layers that only one ticket has, or that have another shape, each with the reason.
    """

    total: Overlap
    layers: dict[str, Overlap]
    left_out: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        layers = {name: layer.to_json() for name, layer in self.layers.items()}
        return {"total": self.total.to_json(), "layers": layers, "left_out": self.left_out}


def overlap(first: Ticket, second: Ticket) -> TicketOverlap:
    """Compares the masks of two tickets, and the signs of the weights that survive in both.

    Parameters that only follow others (``Ticket.following``) are not compared.

    Args:
        first: A ticket, on the CPU.
        second: Another one.

    Raises:
        TicketError: They have no layer in common.
    """
    ours, theirs = first.prunable_masks, second.prunable_masks
    left_out = {name: "only the first ticket has it" for name in ours if name not in theirs}
    left_out |= {name: "only the second ticket has it" for name in theirs if name not in ours}
    for name in ours:
        if name in theirs and ours[name].shape != theirs[name].shape:
            left_out[name] = f"its shape is {tuple(ours[name].shape)} and {tuple(theirs[name].shape)}"
    names = [name for name in ours if name not in left_out]
    for which, masks in (("first", ours), ("second", theirs)):
        if not masks:
            raise TicketError(f"The {which} ticket has no masks to compare.")
    if not names:
        raise TicketError(
            f"The tickets have no layer in common: the first has {first_of(list(ours))}, the second "
            f"{first_of(list(theirs))}. If only names differ, write ticket.transfer(model, rename=...).ticket."
        )
    layers = {name: _layer(ours[name], theirs[name], first.weights[name], second.weights[name]) for name in names}
    return TicketOverlap(_sum(layers.values()), layers, left_out)


def _layer(mask: Tensor, other: Tensor, weight: Tensor, other_weight: Tensor) -> Overlap:
    n, a, b = mask.numel(), kept({"": mask}), kept({"": other})
    signs, other_signs = values_of(weight).sgn(), values_of(other_weight).sgn()
    same = mask & other & (signs == other_signs)
    both = kept({"": mask & other})
    shares = zip(_shares(signs[mask]), _shares(other_signs[other]), strict=True)
    # The number of common survivors of random masks has a hypergeometric distribution.
    return Overlap(
        prunable=n,
        first=a,
        second=b,
        both=both,
        expected_both=a * b / max(n, 1),
        variance=a * b * (n - a) * (n - b) / (n * n * (n - 1)) if n > 1 else 0.0,
        same_sign=kept({"": same}),
        expected_same_sign=both * sum(p * q for p, q in shares),
    )


def _shares(signs: Tensor) -> list[float]:
    """Which parts of some signs are -1, 0 and 1."""
    return [int((signs == sign).sum()) / max(signs.numel(), 1) for sign in (-1, 0, 1)]


def _sum(layers: Collection[Overlap]) -> Overlap:
    """All layers together. Variances add, since masks of different layers are independent."""
    names = [entry.name for entry in fields(Overlap)]
    return Overlap(**{name: sum(getattr(layer, name) for layer in layers) for name in names})

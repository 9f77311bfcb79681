"""What trainings cost, compared with the training of round 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.storage.record import RoundRecord
from lightning_lottery.tickets import RoundId


@dataclass(frozen=True)
class Cost:
    """What some trainings cost, in trainings of round 0: 2.5 is as much as two and a half of them.

    Round 0 is dense unless the search starts from a ticket.

    Attributes:
        trainings: Their optimizer steps, in those of round 0.
        flops: Their floating-point operations, forward and backward, with dense weights; ``None`` if unknown.
        sparse_flops: The same without the operations of pruned weights, which only sparse kernels would save.
        seconds: Their duration, validation included.
        by_branch: The cost of each branch, such as ``"ticket"``, which includes round 0, and ``"search"``, in the
            order of training.
    """

    trainings: float
    flops: float | None
    sparse_flops: float | None
    seconds: float
    by_branch: Mapping[str, Cost] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Sequence[RoundRecord]) -> Cost:
        """Adds up the cost of trainings.

        Args:
            records: The records of the trainings. Round 0 of the tickets is the unit; if a stop rule has ended it,
                the unit is its full length.

        Raises:
            ConfigurationError: Round 0 is missing.
        """
        dense = next((record for record in records if record.id == RoundId(0)), None)
        if dense is None or not dense.steps:
            raise ConfigurationError(
                "Costs are in trainings of round 0, but round 0 has not finished, or prune_at_init=True "
                "trains none. The steps, seconds and flops of each round are in its record."
            )
        branches = dict.fromkeys(record.branch for record in records)
        own = {name: _added([r for r in records if r.branch == name], dense) for name in branches}
        total = _added(records, dense)
        return cls(total.trainings, total.flops, total.sparse_flops, total.seconds, own)


def _added(records: Sequence[RoundRecord], dense: RoundRecord) -> Cost:
    # The unit is the full length of round 0, even if a stop rule has ended it.
    part = 1.0 if dense.saved_steps == 0 else dense.steps / (dense.steps + dense.saved_steps)
    return Cost(
        trainings=part * sum(record.steps for record in records) / dense.steps,
        flops=_relative([record.flops for record in records], dense.flops, part),
        sparse_flops=_relative([record.sparse_flops for record in records], dense.flops, part),
        seconds=part * sum(record.seconds for record in records) / (dense.seconds or nan),
    )


def _relative(amounts: Sequence[int | None], dense: int | None, part: float) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return part * sum(known) / dense if dense and len(known) == len(amounts) else None

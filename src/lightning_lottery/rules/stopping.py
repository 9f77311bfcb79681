"""Stop rules: when further rounds, or the rest of a round, are not worth training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_lottery.plain import check_integer, check_number, make_plain
from lightning_lottery.storage import RoundRecord, is_better, rounding


@dataclass(frozen=True)
class Stop(ABC):
    """Base class of stop rules: ends the search, or a single round, early. Write your own as a frozen dataclass.

    Attributes:
        compares: Whether :meth:`after_round` compares the monitored metric with its value in the dense round.
    """

    @property
    def compares(self) -> bool:
        """Whether the rule needs the monitored metric and a dense round."""
        return False

    @property
    def window(self) -> int:
        """Number of consecutive masks that :meth:`after_epoch` needs; 0 if it never ends a round."""
        return 0

    @abstractmethod
    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        """Whether to train no further ticket.

        Args:
            records: The records of the tickets so far, starting with the dense round.
            mode: ``"min"`` or ``"max"``, for the monitored metric.
        """

    def after_epoch(self, masks: Sequence[Mapping[str, Tensor]], now: Mapping[str, Tensor]) -> bool:
        """Whether to end the training of this round, since it is clear what its pruning will remove.

        Args:
            masks: The masks that pruning after each of the last epochs would have given, the newest last. There
                are ``window`` of them, or fewer at the beginning of a round.
            now: The masks of the round.
        """
        return False


@dataclass(frozen=True)
class Tolerance(Stop):
    """Trains no further round once the best value is worse than in the dense round by more than ``drop``.

    Attributes:
        drop: Tolerated loss in units of the monitored metric, at least 0. For accuracies, 0.01 is one percentage
            point.
    """

    drop: float

    def __post_init__(self) -> None:
        make_plain(self)
        check_number("drop", self.drop, "of at least 0", "Tolerance(drop=0.01)")

    @property
    def compares(self) -> bool:
        return True

    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        dense, last = records[0].best_value, records[-1].best_value
        if dense is None:
            return False
        if last is None:
            return True  # only NaN
        return is_better(dense, last, mode, by=self.drop + rounding(dense, last))


@dataclass(frozen=True)
class EarlyBird(Stop):
    """Ends a round once the mask that its pruning would give is stable (You et al. 2020, arXiv:1909.11957).

    The mask is computed after every epoch. The round ends when the newest mask differs from each of the others of
    the last ``window`` epochs in at most ``tolerance`` of the survivors. Masks that remove a fraction p differ in
    at most 2p of them, so choose a tolerance well below ``amount``. Rounds after which nothing is removed, such as
    the last one, are never shortened, a control trains as long as its ticket, and round 0 trains at least to the
    rewind point. With ``search``, only search rounds are shortened.

    Attributes:
        window: Number of epochs to compare, at least 2.
        tolerance: Largest fraction of survivors that may differ, in [0, 1). The paper uses 0.1, for channels.
    """

    window: int = 5
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        make_plain(self)
        check_integer("window", self.window, 2, "EarlyBird(window=5)")
        check_number("tolerance", self.tolerance, "from 0 to below 1", "EarlyBird(tolerance=0.1)")

    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        return False

    def after_epoch(self, masks: Sequence[Mapping[str, Tensor]], now: Mapping[str, Tensor]) -> bool:
        if len(masks) < self.window:
            return False
        newest, others = masks[-1], masks[-self.window : -1]
        return all(distance(newest, other, now) <= self.tolerance for other in others)


def distance(masks: Mapping[str, Tensor], others: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """The fraction of the survivors in ``now`` on which two later masks disagree, in [0, 1]."""
    different = sum(int((mask ^ others[name]).count_nonzero()) for name, mask in masks.items())
    return different / sum(int(mask.count_nonzero()) for mask in now.values())

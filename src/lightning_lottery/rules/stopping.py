"""Stop rules: when there is nothing more to gain from further rounds, or from going on with one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import make_plain
from lightning_lottery.storage import RoundRecord


@dataclass(frozen=True)
class Stop(ABC):
    """Ends rounds, or the training of one, early. A rule of your own is one frozen dataclass like those below.

    Attributes:
        compares: Whether :meth:`after_round` compares values of the monitored metric with the dense round's.
    """

    @property
    def compares(self) -> bool:
        """See :class:`Stop`."""
        return False

    @property
    def window(self) -> int:
        """How many successive masks :meth:`after_epoch` wants to see; 0 if it has nothing to say."""
        return 0

    @abstractmethod
    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        """Whether no further ticket is to be trained.

        Args:
            records: Those of the tickets so far, the dense round's first.
            mode: ``"min"`` or ``"max"``, of the monitored metric.
        """

    def after_epoch(self, masks: Sequence[Mapping[str, Tensor]], now: Mapping[str, Tensor]) -> bool:
        """Whether the training of this round is to end, since it is known what its pruning will remove.

        Args:
            masks: The masks that pruning would have given after the last epochs, the newest last; at least the
                last ``window`` of them, if the round has come so far.
            now: The masks of the round.
        """
        return False


@dataclass(frozen=True)
class Tolerance(Stop):
    """No further round when the best value of a round falls below that of the dense one by more than ``drop``.

    Attributes:
        drop: In units of the monitored metric, at least 0: 0.01 of an accuracy is a percentage point.
    """

    drop: float

    def __post_init__(self) -> None:
        make_plain(self)
        if not isinstance(self.drop, (int, float)) or isinstance(self.drop, bool) or not self.drop >= 0:
            raise ConfigurationError(f"drop={self.drop!r} must be a number of at least 0: Tolerance(drop=0.01).")

    @property
    def compares(self) -> bool:
        """See :attr:`Stop.compares`."""
        return True

    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        """See :meth:`Stop.after_round`."""
        dense, last = records[0].best_value, records[-1].best_value
        if dense is None:
            return False
        if last is None:
            return True  # nothing but NaN
        return (dense - last if mode == "max" else last - dense) > self.drop


@dataclass(frozen=True)
class EarlyBird(Stop):
    """A round ends when the mask that its pruning would give has settled (You et al. 2020, arXiv:1909.11957).

    After every epoch that mask is found; when the newest differs from all others of the last ``window`` epochs in
    at most ``tolerance`` of the survivors, the round is over. Masks that remove a fraction p differ in no more
    than 2p of them, so let the tolerance be small beside ``amount``. The last round trains to its end, a control
    as long as its ticket, and round 0 at least to the point that is rewound to.

    Attributes:
        window: Epochs to compare, at least 2.
        tolerance: Largest fraction of different survivors, in [0, 1). The paper takes 0.1, of channels.
    """

    window: int = 5
    tolerance: float = 0.1

    def __post_init__(self) -> None:
        make_plain(self)
        if not isinstance(self.window, int) or isinstance(self.window, bool) or self.window < 2:
            raise ConfigurationError(
                f"window={self.window!r} must be an integer of at least 2: EarlyBird(window=5)."
            )
        if type(self.tolerance) not in (int, float) or not 0 <= self.tolerance < 1:
            raise ConfigurationError(
                f"tolerance={self.tolerance!r} must be a number from 0 up to 1: EarlyBird(tolerance=0.1)."
            )

    def after_round(self, records: Sequence[RoundRecord], mode: str) -> bool:
        """See :meth:`Stop.after_round`."""
        return False

    def after_epoch(self, masks: Sequence[Mapping[str, Tensor]], now: Mapping[str, Tensor]) -> bool:
        """See :meth:`Stop.after_epoch`."""
        if len(masks) < self.window:
            return False
        newest, others = masks[-1], masks[-self.window : -1]
        return all(distance(newest, other, now) <= self.tolerance for other in others)


def distance(masks: Mapping[str, Tensor], others: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """The fraction of the survivors in ``now`` of which two later masks say different things, in [0, 1]."""
    different = sum(int((mask ^ others[name]).count_nonzero()) for name, mask in masks.items())
    return different / sum(int(mask.count_nonzero()) for mask in now.values())

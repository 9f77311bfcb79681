"""Learning-rate schedules of the papers."""

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lightning_lottery.plain import check_integer, check_list, check_number


class WarmUpAndDrops(LambdaLR):
    """Raises the learning rate linearly, and multiplies it by a factor at some points.

    Times are in epochs, or in steps if ``Classifier(interval="step")`` steps it once per step.

    Args:
        optimizer: The optimizer.
        warm_up: Duration of the linear rise, from 1 / ``warm_up`` of the learning rate to all of it.
        drops: The times of the drops, each at least 1.
        factor: What each drop multiplies the learning rate by, in (0, 1).

    Raises:
        ConfigurationError: A time is invalid.
    """

    def __init__(
        self, optimizer: Optimizer, warm_up: int = 0, drops: Sequence[int] = (), factor: float = 0.1
    ) -> None:
        check_list("drops", drops, "drops=[80, 120]")
        self.warm_up = check_integer("warm_up", warm_up, 0, "warm_up=10000")
        self.drops = [check_integer(f"drops[{n}]", drop, 1, "drops=[80, 120]") for n, drop in enumerate(drops)]
        self.factor = check_number("factor", factor, "between 0 and 1, both excluded", "factor=0.1")
        super().__init__(optimizer, self._share)

    def _share(self, time: int) -> float:
        """What the learning rate is multiplied by at a time."""
        rise = min(1.0, (time + 1) / self.warm_up) if self.warm_up else 1.0
        return rise * float(self.factor ** sum(time >= drop for drop in self.drops))

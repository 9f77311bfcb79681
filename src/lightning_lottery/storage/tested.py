"""The test metrics of one training: a line in ``tests.jsonl``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning_lottery.plain import finite
from lightning_lottery.storage.record import number
from lightning_lottery.tickets import RoundId


@dataclass(frozen=True)
class RoundTest:
    """What one training reaches on the test set. Nothing is selected by it.

    Attributes:
        round: Number of prunings before the training.
        branch: ``"ticket"``, ``"search"``, or the name of the control; see :class:`RoundId`.
        last: The test metrics with the last weights; ``None`` without a checkpoint of them.
        best: The test metrics with the weights of the best value of the monitored metric; ``None`` without a
            checkpoint of them.
    """

    round: int
    branch: str
    last: Mapping[str, float] | None = None
    best: Mapping[str, float] | None = None

    @property
    def id(self) -> RoundId:
        """The training."""
        return RoundId(self.round, self.branch)

    def to_json(self) -> dict[str, Any]:
        """The values of a line in ``tests.jsonl``."""
        return {name: finite(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "RoundTest":
        """Undoes :meth:`to_json`."""
        metrics = {name: _numbers(values.get(name)) for name in ("last", "best")}
        return cls(values["round"], values["branch"], **metrics)


def _numbers(values: dict[str, Any] | None) -> dict[str, float] | None:
    return None if values is None else {name: number(value) for name, value in values.items()}

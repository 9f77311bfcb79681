"""A run, as it is read from its folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightning_lottery.storage.description import RunDescription
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.records import Records
from lightning_lottery.storage.tested import RoundTest
from lightning_lottery.storage.tickets import Tickets
from lightning_lottery.tickets import RoundId


@dataclass(frozen=True)
class Replicate:
    """One run of an experiment, as it was when its folder was read. It may still be training.

    Attributes:
        path: The run folder.
        description: What the run trains, and how.
        records: The records of the finished rounds.
        tests: The test metrics of the rounds that were tested.
    """

    path: Path
    description: RunDescription
    records: Records
    tests: Mapping[RoundId, RoundTest] = field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> "Replicate | None":
        """Reads a run folder; ``None`` if no run was started there.

        Raises:
            LotteryError: A line of its records or tests is damaged.
        """
        folder = RunFolder.at(path)
        description = None if folder is None else folder.description()
        if folder is None or description is None:
            return None
        return cls(path, description, folder.read_records(), folder.read_tests())

    @property
    def seed(self) -> int:
        """The seed of PyTorch's global generator when the run started."""
        return int(self.description.provenance["seed"])

    @property
    def tickets(self) -> Tickets:
        """The tickets by round, as in ``LotteryTicketCallback.tickets``."""
        return Tickets(RunFolder(self.path))

    @property
    def monitor(self) -> str | None:
        """The name of the monitored metric, if any."""
        return self.description.arguments.get("monitor")

    @property
    def mode(self) -> str | None:
        """``"max"`` if large values of the monitored metric are good, ``"min"`` if small ones are."""
        return self.description.arguments.get("mode")

    @property
    def plan(self) -> list[RoundId]:
        """All trainings in order; empty if the run was started by a version that did not write them."""
        return [entry for name in self.description.plan if (entry := RoundId.parse(name)) is not None]

    @property
    def is_finished(self) -> bool:
        """Whether every training has a record."""
        recorded = {record.id for record in self.records}
        return bool(self.plan) and recorded.issuperset(self.plan)


# Runs of one experiment, by seed.
Runs = Mapping[int, Replicate]

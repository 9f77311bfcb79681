"""The runs of a study, as they are read from their folders."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_lottery.errors import ConfigurationError, LotteryError
from lightning_lottery.files import local_path
from lightning_lottery.rules import Difference, differences
from lightning_lottery.storage import DESCRIPTION, Records, RunDescription, RunFolder, Tickets
from lightning_lottery.tickets import RoundId


@dataclass(frozen=True)
class Replicate:
    """One run of an experiment, as it was when its folder was read. It may still be training.

    Attributes:
        path: The run folder.
        description: What the run trains, and how.
        records: The records of the finished rounds.
    """

    path: Path
    description: RunDescription
    records: Records

    @classmethod
    def at(cls, path: Path) -> "Replicate | None":
        """Reads a run folder; ``None`` if no run was started there.

        Raises:
            LotteryError: A line of its records is damaged.
        """
        folder = RunFolder.at(path)
        description = None if folder is None else folder.description()
        if folder is None or description is None:
            return None
        return cls(path, description, folder.read_records())

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


class Replicates(Mapping[int, Replicate]):
    """The runs of one experiment by seed, in the order of seeds. Read them with :meth:`Study.read`.

    Args:
        replicates: The runs.
        ignore: Patterns of names of hyperparameters that may differ between the runs.

    Raises:
        ConfigurationError: Two runs have the same seed, or are different experiments.
    """

    def __init__(self, replicates: Sequence[Replicate], ignore: Sequence[str] = ()) -> None:
        self._by_seed: dict[int, Replicate] = {}
        for replicate in sorted(replicates, key=lambda replicate: replicate.seed):
            first = next(iter(self._by_seed.values()), replicate)
            if found := differences(first.description, replicate.description, ignore):
                raise ConfigurationError(_not_the_same(first, replicate, found))
            if (other := self._by_seed.setdefault(replicate.seed, replicate)) is not replicate:
                raise ConfigurationError(
                    f"{str(other.path)!r} and {str(replicate.path)!r} have the same seed {replicate.seed}, so "
                    "they are not independent. Read only one of them."
                )

    @classmethod
    def read(cls, paths: Sequence[str | os.PathLike[str]], ignore: Sequence[str] = ()) -> "Replicates":
        """Reads all run folders at and below some paths; see :meth:`Study.read`."""
        local = [local_path(os.fspath(path), "Study.read('runs/exp')") for path in paths]
        for path in local:
            if not path.is_dir():
                raise ConfigurationError(
                    f"{str(path)!r} is not a folder. Write for example Study.read('runs/exp')."
                )
        folders = {folder.resolve(): folder for path in local for folder in _run_folders(path)}
        found = [cls._whole(folder) for folder in folders.values()]
        if not found:
            shown = ", ".join(repr(str(path)) for path in local)
            raise ConfigurationError(f"No run was found in {shown}. A run folder contains a {DESCRIPTION}.")
        return cls(found, ignore)

    @staticmethod
    def _whole(folder: Path) -> Replicate:
        replicate = Replicate.at(folder)
        if replicate is None or "seed" not in replicate.description.provenance:
            raise LotteryError(f"{folder / DESCRIPTION} is damaged. Remove the folder, or read others.")
        return replicate

    @classmethod
    def of(cls, folders: Sequence[Path]) -> "Replicates":
        """Reads some run folders, the hyperparameters of which may differ. Folders without a run are left out."""
        return cls([found for folder in folders if (found := Replicate.at(folder)) is not None], ignore=["*"])

    def __getitem__(self, seed: int) -> Replicate:
        if seed not in self._by_seed:
            raise KeyError(f"no run with seed {seed!r}; the seeds are {list(self)}")
        return self._by_seed[seed]

    def __iter__(self) -> Iterator[int]:
        return iter(self._by_seed)

    def __len__(self) -> int:
        return len(self._by_seed)

    def __repr__(self) -> str:
        states = [f"{seed}: {len(run.records)} of {len(run.plan)} rounds" for seed, run in self.items()]
        return f"Replicates({', '.join(states)})"


def _run_folders(path: Path) -> Iterator[Path]:
    """All run folders at and below a path, also behind links."""
    seen: set[Path] = set()
    for folder, inside, files in os.walk(path, followlinks=True):
        if (real := Path(folder).resolve()) in seen:  # a circle of links
            inside.clear()
            continue
        seen.add(real)
        if DESCRIPTION in files:
            yield Path(folder)


def _not_the_same(first: Replicate, second: Replicate, found: Sequence[Difference]) -> str:
    """The error message for runs that are different experiments."""
    shown = "; ".join(f"{entry.name} is {entry.values[0]!r} and {entry.values[1]!r}" for entry in found[:3])
    names = [entry.name for entry in found]
    only_names = all(entry.part == "hyperparameters" for entry in found)
    return (
        f"{str(first.path)!r} and {str(second.path)!r} are different experiments: {shown}. Read folders of one "
        "experiment only" + (f", or write ignore={names} if that may differ." if only_names else ".")
    )

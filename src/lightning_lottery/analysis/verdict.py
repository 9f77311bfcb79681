"""The verdict: how tickets and controls compare with the dense network, over seeds."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean, stdev
from typing import Any, overload

from lightning_lottery.analysis.question import Question
from lightning_lottery.analysis.statistics import PairedDifference, Word, holm, paired_difference, word_for
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path, write_atomically
from lightning_lottery.storage import rounding
from lightning_lottery.tickets import TICKET_BRANCH, RoundId


@dataclass(frozen=True)
class Training:
    """What the seeds of a study have measured in one training.

    Attributes:
        id: The training.
        density: Its density.
        values: The metric by seed; finite.
        missing: The seeds whose metric is NaN, infinite or was not logged. Seeds that have not trained or tested
            the round are neither here nor among the values.
        steps: By seed, the step at which the value to reach was first reached.
        seeds_with_curve: The seeds that could have reached it, since the curve of their metric is known.
    """

    id: RoundId
    density: float
    values: Mapping[int, float]
    missing: Sequence[int] = ()
    steps: Mapping[int, float] = field(default_factory=dict)
    seeds_with_curve: Sequence[int] = ()


@dataclass(frozen=True)
class Quantity:
    """One number per seed, and its paired differences.

    Attributes:
        values: The numbers by seed.
        to_dense: This training minus round 0; ``None`` for round 0, and without a common seed.
        from_ticket: For a control of a later round, the ticket of the round minus this training.
    """

    values: Mapping[int, float]
    to_dense: PairedDifference | None = None
    from_ticket: PairedDifference | None = None

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; ``None`` without any."""
        return mean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds; ``None`` for fewer than two."""
        return stdev(self.values.values()) if self.n > 1 else None

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {"n": self.n, "mean": self.mean, "deviation": self.deviation, **asdict(self)}


@dataclass(frozen=True)
class VerdictRow:
    """How one training compares.

    Attributes:
        round: Number of prunings before it.
        branch: ``"ticket"``, or the name of the control.
        density: kept / prunable.
        metric: The metric.
        steps: The steps at which the value to reach was first reached, over the seeds that reached it; ``None`` if
            that was not asked.
        seeds_with_curve: The seeds that could have reached it.
        word: Winning, matching (within the tolerance), worse or inconclusive, against round 0. ``None`` for
            round 0 itself, and if there is none.
        missing: The seeds whose metric is NaN, infinite or was not logged. If there are any, here or in round 0,
            the word is inconclusive.
    """

    round: int
    branch: str
    density: float
    metric: Quantity
    steps: Quantity | None
    seeds_with_curve: Sequence[int]
    word: Word | None
    missing: Sequence[int]

    @property
    def id(self) -> RoundId:
        """The training."""
        return RoundId(self.round, self.branch)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        steps = None if self.steps is None else self.steps.to_json()
        plain = {**vars(self), "seeds_with_curve": list(self.seeds_with_curve), "missing": list(self.missing)}
        return {**plain, "metric": self.metric.to_json(), "steps": steps}


@dataclass(frozen=True)
class Verdict(Mapping[int, VerdictRow]):
    """How all trainings of a study compare, over seeds.

    ``verdict[3]`` is the row of the ticket of round 3, ``verdict["shuffle_mask"][3]`` that of a control.

    Attributes:
        question: What was compared.
        seeds: All seeds.
        rows: One row for each training, in the order of training.
    """

    question: Question
    seeds: Sequence[int]
    rows: Sequence[VerdictRow]

    @classmethod
    def of(cls, trainings: Sequence[Training], seeds: Sequence[int], question: Question) -> "Verdict":
        """Compares trainings.

        Args:
            trainings: The trainings in order.
            seeds: All seeds.
            question: What to compare, and how.

        Raises:
            ConfigurationError: SciPy is not installed.
        """
        by_id = {training.id: training for training in trainings}
        metrics = _compared(by_id, lambda training: training.values, question.confidence)
        asks_steps = question.reach is not None
        steps = _compared(by_id, lambda training: training.steps, question.confidence) if asks_steps else {}
        rows = [
            VerdictRow(
                round=entry.number,
                branch=entry.branch,
                density=training.density,
                metric=metrics[entry],
                steps=steps.get(entry),
                seeds_with_curve=training.seeds_with_curve,
                word=_word(training, by_id.get(RoundId(0)), metrics[entry], question),
                missing=training.missing,
            )
            for entry, training in by_id.items()
        ]
        return cls(question, list(seeds), rows)

    @overload
    def __getitem__(self, key: int) -> VerdictRow: ...
    @overload
    def __getitem__(self, key: str) -> dict[int, VerdictRow]: ...
    def __getitem__(self, key: int | str) -> VerdictRow | dict[int, VerdictRow]:
        branch = key if isinstance(key, str) else TICKET_BRANCH
        found = {row.round: row for row in self.rows if row.branch == branch}
        if isinstance(key, str):
            if not found:
                raise KeyError(f"no branch {key!r}; the branches are {self.branches()}")
            return found
        if key not in found:
            raise KeyError(f"no ticket of round {key!r}; the rounds are {list(found)}")
        return found[key]

    def __iter__(self) -> Iterator[int]:
        return iter([row.round for row in self.rows if row.id.is_ticket])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def branches(self) -> list[str]:
        """The branches, in the order of training."""
        return list(dict.fromkeys(row.branch for row in self.rows))

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; the content of ``verdict.json``."""
        return {**asdict(self.question), "seeds": self.seeds, "rows": [row.to_json() for row in self.rows]}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes everything to a JSON file.

        Raises:
            ConfigurationError: The path is a folder.
        """
        target = local_path(os.fspath(path), "verdict.save('verdict.json')")
        if target.is_dir():
            raise ConfigurationError(f"{str(path)!r} is a folder. Write the path of a file, such as verdict.json.")
        write_atomically(target, (json.dumps(self.to_json(), indent=2) + "\n").encode())


def _word(training: Training, dense: Training | None, metric: Quantity, question: Question) -> Word | None:
    """The word of a training, given round 0 if there is one."""
    if dense is None or training.id == dense.id:
        return None
    if metric.to_dense is None or training.missing or dense.missing:
        return "inconclusive"
    equal = rounding(*training.values.values(), *dense.values.values())
    return word_for(metric.to_dense, question.mode, question.tolerance, equal)


def _compared(
    trainings: Mapping[RoundId, Training], take: Callable[[Training], Mapping[int, float]], confidence: float
) -> dict[RoundId, Quantity]:
    """The paired differences of one quantity, with p-values that are adjusted for all of the same kind."""
    dense = take(trainings[RoundId(0)]) if RoundId(0) in trainings else {}
    made = {}
    for entry, training in trainings.items():
        values = take(training)
        # A control of round 0 is compared with round 0 already.
        ticket = trainings.get(entry.ticket) if not entry.is_ticket and entry.number > 0 else None
        made[entry] = Quantity(
            values=dict(values),
            to_dense=None if entry == RoundId(0) else paired_difference(values, dense, confidence),
            from_ticket=None if ticket is None else paired_difference(take(ticket), values, confidence),
        )
    return _adjusted(made)


def _adjusted(quantities: dict[RoundId, Quantity]) -> dict[RoundId, Quantity]:
    """Adjusts p-values, separately for tickets to dense, controls to dense, and tickets to controls."""
    kinds: dict[tuple[str, bool], list[tuple[RoundId, PairedDifference]]] = {}
    for entry, quantity in quantities.items():
        for name in ("to_dense", "from_ticket"):
            difference = getattr(quantity, name)
            if difference is not None and difference.p is not None:
                kinds.setdefault((name, entry.is_ticket), []).append((entry, difference))
    made = dict(quantities)
    for (name, _), tests in kinds.items():
        adjusted = holm([float(difference.p or 0.0) for _, difference in tests])
        for (entry, difference), p_holm in zip(tests, adjusted, strict=True):
            changes: dict[str, Any] = {name: replace(difference, p_holm=p_holm)}
            made[entry] = replace(made[entry], **changes)
    return made

"""The tickets of some runs beside the numbers that the authors of a paper have published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from lightning_lottery.analysis.question import Question
from lightning_lottery.analysis.values import trainings_of
from lightning_lottery.analysis.verdict import Quantity
from lightning_lottery.literature import Pruning, Published, PublishedValue, look_up, papers
from lightning_lottery.storage import RunDescription, Runs
from lightning_lottery.tickets import TICKET_BRANCH


@dataclass(frozen=True)
class BesideRow:
    """One size of the network.

    Attributes:
        density: kept / prunable.
        ours: The accuracies of the runs, by seed, in [0, 1].
        theirs: What was published for this density; ``None`` if nothing was.
    """

    density: float
    ours: Quantity
    theirs: PublishedValue | None

    @property
    def difference(self) -> float | None:
        """Our mean minus theirs; ``None`` if either is unknown."""
        return None if self.ours.mean is None or self.theirs is None else self.ours.mean - self.theirs.mean

    @property
    def in_deviations(self) -> float | None:
        """The difference in their standard deviations; ``None`` if it or the deviation is unknown."""
        if self.difference is None or self.theirs is None or not self.theirs.deviation:
            return None
        return self.difference / self.theirs.deviation


@dataclass(frozen=True)
class Beside:
    """The accuracies of some runs beside published ones of the same network, data set and method.

    Attributes:
        branch: ``"ticket"``, or ``"reinitialize"`` for the control.
        published: The published numbers.
        question: What our accuracies are.
        rows: All sizes that were trained, in the order of training.
        epochs: Length of our rounds; ``None`` if it was not given in epochs.
    """

    branch: str
    published: Published
    question: Question
    rows: Sequence[BesideRow]
    epochs: int | None


def beside_published(runs: Runs, question: Question) -> list[Beside]:
    """Puts published numbers beside some runs of the same experiment, if the package has them.

    The network is recognised by the number of its prunable parameters and weights, the data set by the name of the
    LightningDataModule's class and the shape of its images, the method by the arguments of the callback. What else
    the authors did, such as their learning rates, is not compared.

    Args:
        runs: The runs by seed.
        question: What the runs are asked about. If an accuracy on the test set was recorded, that is taken
            instead, since published numbers are test accuracies.

    Returns:
        One entry for the tickets and one for the control ``Reinitialize``, where numbers were published. Empty for
        other experiments, and if accuracies are unknown or not in [0, 1].
    """
    description = next(iter(runs.values())).description
    known = {branch: numbers for branch, numbers in _published_for(description).items() if numbers is not None}
    asked = _accuracy(runs, question)
    if not known or asked is None:
        return []
    limit = description.trainer.get("max_epochs")
    found = []
    for branch, numbers in known.items():
        trainings = [training for training in trainings_of(runs, asked) if training.id.branch == branch]
        rows = [BesideRow(one.density, Quantity(one.values), numbers.at(one.density)) for one in trainings]
        if any(row.ours.n for row in rows):
            epochs = limit if isinstance(limit, int) and limit > 0 else None
            found.append(Beside(branch, numbers, asked, rows, epochs))
    return found


def _accuracy(runs: Runs, question: Question) -> Question | None:
    """What to compare: an accuracy on the test set, or else the question if it is about an accuracy."""
    tests = [test.last or {} for run in runs.values() for test in run.tests.values()]
    names = dict.fromkeys(name for metrics in tests for name in metrics if "acc" in name)
    if names:
        return _if_share(runs, Question(next(iter(names)), "max", "end", is_test=True, is_monitored=False))
    is_accuracy = question.mode == "max" and "acc" in question.metric
    return _if_share(runs, question) if is_accuracy else None


def _if_share(runs: Runs, question: Question) -> Question | None:
    values = [value for training in trainings_of(runs, question) for value in training.values.values()]
    return question if values and all(0 <= value <= 1 for value in values) else None


def _published_for(description: RunDescription) -> dict[str, Published | None]:
    """The published numbers of an experiment, by branch."""
    arguments, sizes = description.arguments, [prod(shape) for shape in description.prunable.values()]
    kind: Pruning = "one-shot" if len(description.counts) == 2 else "iterative"
    for paper in papers().values():
        for key, network in paper.networks.items():
            is_network = (len(sizes), sum(sizes)) == (network.layers, network.weights)
            is_data = description.environment.get("data") == network.dataset
            if is_network and is_data and description.input_shape == network.input_shape:
                methods = _methods(arguments, kind)
                return {branch: look_up(paper.key, key, method, kind) for branch, method in methods.items()}
    return {}


def _methods(arguments: Mapping[str, Any], kind: Pruning) -> dict[str, str]:
    """What a run does, in the words of :func:`published`, by branch. Empty if no paper here does it."""
    criterion, rewind = (str(arguments.get(name)) for name in ("criterion", "rewind"))
    is_plain = (
        arguments.get("pattern") == "Unstructured()"
        and str(arguments.get("scope")).startswith("Global(min_density=0.0,")
        and not any(arguments.get(name) for name in ("stop", "search", "start"))
        and "optimizer='fresh'" not in rewind
    )
    if not is_plain:
        return {}
    if arguments.get("prune_at_init"):
        return {TICKET_BRANCH: f"{criterion.partition('(')[0]}()"} if kind == "one-shot" else {}
    if criterion != "Magnitude()":
        return {}
    return {TICKET_BRANCH: rewind, "reinitialize": "Reinitialize()"}

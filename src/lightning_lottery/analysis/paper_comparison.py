"""Compares runs with the numbers that the authors of a paper have published."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from statistics import mean
from typing import Any

from lightning_lottery.analysis.question import Question
from lightning_lottery.analysis.values import trainings_of
from lightning_lottery.analysis.verdict import Quantity
from lightning_lottery.literature import Pruning, Published, PublishedValue, find_published, papers
from lightning_lottery.storage import RunDescription, Runs
from lightning_lottery.tickets import TICKET_BRANCH, RoundId

# Arguments that change the method.
_OTHERS = ("stop", "search", "start")
_GLOBAL = "Global(min_density=0.0"
# What the authors score as this package does. They score SNIP and GraSP in evaluation mode.
_AT_INIT = ("Random()", "Magnitude()", "SynFlow(steps=100)")


@dataclass(frozen=True)
class ComparedSize:
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
class PaperComparison:
    """The accuracies of some runs, and published ones of the same network, data set and method.

    Attributes:
        branch: ``"ticket"``, or ``"reinitialize"`` for the control.
        published: The published numbers.
        question: What our accuracies are.
        rows: All sizes that were trained, in the order of training.
        steps: Steps of our rounds, the mean over seeds of the first row; ``None`` if it was not trained.
    """

    branch: str
    published: Published
    question: Question
    rows: Sequence[ComparedSize]
    steps: float | None


def compare_with_paper(runs: Runs, question: Question) -> list[PaperComparison]:
    """Finds published numbers of the same experiment.

    The network is recognised by the number of its prunable parameters and weights, the data set by the name of the
    LightningDataModule's class and the shape of its images, the method by the arguments of the callback. What else
    the authors did, such as their learning rates, is not checked.

    Args:
        runs: The runs by seed, all of one experiment.
        question: What the runs are asked about. If all of them have an accuracy on the test set, that is taken
            instead, since published numbers are test accuracies.

    Returns:
        One entry for the tickets and one for the control ``Reinitialize``, where numbers were published. Empty for
        other experiments, and if accuracies are unknown or not in [0, 1].
    """
    description = next(iter(runs.values())).description
    asked = _accuracy(runs, question)
    if asked is None:
        return []
    found = []
    for branch, numbers in _published_for(description).items():
        trainings = [training for training in trainings_of(runs, asked) if training.id.branch == branch]
        rows = [ComparedSize(one.density, Quantity(one.values), numbers.at(one.density)) for one in trainings]
        if any(row.ours.n for row in rows):
            found.append(PaperComparison(branch, numbers, asked, rows, _steps(runs, trainings[0].id)))
    return found


def _steps(runs: Runs, entry: RoundId) -> float | None:
    steps = [record.steps for run in runs.values() for record in run.records if record.id == entry]
    return mean(steps) if steps else None


def _accuracy(runs: Runs, question: Question) -> Question | None:
    """What to compare: the accuracy on the test set, or else the question if it is about an accuracy."""
    tested = [{n for test in run.tests.values() for n in test.last or {}} for run in runs.values()]
    names = sorted(filter(_is_accuracy, set.intersection(*tested)))
    if names:
        return _if_fraction(runs, Question(names[0], "max", "end", is_test=True, is_monitored=False))
    return _if_fraction(runs, question) if _is_accuracy(question.metric) and question.mode == "max" else None


def _is_accuracy(metric: str) -> bool:
    """Whether a metric is the share of images that are classified correctly, by its name."""
    return re.fullmatch(r"(val|valid|validation|test)[_/.-]?acc(uracy)?", metric, re.IGNORECASE) is not None


def _if_fraction(runs: Runs, question: Question) -> Question | None:
    values = [value for training in trainings_of(runs, question) for value in training.values.values()]
    return question if values and all(0 <= value <= 1 for value in values) else None


def _published_for(description: RunDescription) -> dict[str, Published]:
    """The published numbers of an experiment, by branch."""
    arguments, sizes = description.arguments, [prod(shape) for shape in description.prunable.values()]
    kind: Pruning = "one-shot" if len(description.counts) == 2 else "iterative"
    for paper in papers().values():
        for key, network in paper.networks.items():
            is_network = (len(sizes), sum(sizes)) == (network.layers, network.weights)
            is_data = description.environment.get("data") == network.dataset
            if is_network and is_data and description.input_shape == network.input_shape:
                methods = _methods(arguments, kind, network.final_lr)
                found = {
                    branch: find_published(paper.key, key, method, kind) for branch, method in methods.items()
                }
                return {branch: numbers for branch, numbers in found.items() if numbers is not None}
    return {}


def _methods(arguments: Mapping[str, Any], kind: Pruning, final_lr: float | None) -> dict[str, str]:
    """What a run does, in the words of :func:`published`, by branch. Empty if no paper here does it."""
    criterion, scope, rewind = (str(arguments.get(name)) for name in ("criterion", "scope", "rewind"))
    if arguments.get("pattern") != "Unstructured()" or any(arguments.get(name) for name in _OTHERS):
        return {}
    if arguments.get("prune_at_init"):
        is_theirs = kind == "one-shot" and criterion in _AT_INIT and scope == f"{_GLOBAL}, keep_alive=False)"
        return {TICKET_BRANCH: criterion} if is_theirs else {}
    if criterion != "Magnitude()" or not scope.startswith(f"{_GLOBAL},"):
        return {}
    if rewind.startswith("FineTune(") and not rewind.endswith(f", lr={final_lr})"):
        return {}
    # Only networks that train from the start, with the whole schedule, are reinitialised as there.
    is_whole = rewind in ("ToInit()", "LearningRate(to='init', optimizer='restore')")
    return {TICKET_BRANCH: rewind, **({"reinitialize": "Reinitialize()"} if is_whole else {})}

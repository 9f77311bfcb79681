"""What an experiment has shown, in one number and one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_lottery.analysis import ENOUGH_SEEDS, Quantity, Question, Verdict, VerdictRow
from lightning_lottery.plain import first_of
from lightning_lottery.report.verdict import Show, interval_text, shown_with, spread_text, word_text
from lightning_lottery.report.words import base_name, percent


@dataclass(frozen=True)
class Headline:
    """The answer that an experiment gives.

    Attributes:
        number: One number, such as ``7.78 %``.
        meaning: What the number is.
        sentence: What was found, and how certain it is.
        row: The smallest ticket that is as good as round 0; ``None`` if no ticket is, or that is unknown.
    """

    number: str
    meaning: str
    sentence: str
    row: VerdictRow | None = None

    @classmethod
    def of(cls, verdict: Verdict) -> Headline:
        """Reads the answer from a verdict.

        With three or more seeds, the smallest ticket counts whose word is winning or matching. With fewer, it is
        the smallest one whose mean is not worse than that of round 0 by more than the tolerance.
        """
        show = shown_with([row.metric for row in verdict.rows])
        tickets = [verdict[number] for number in verdict if number > 0]
        if not tickets:
            return cls("…", "no ticket yet", "Only round 0 has finished so far.")
        if 0 not in verdict:
            return _without_dense(verdict, tickets[-1], show)
        if not verdict[0].metric.n:
            sentence = f"{verdict.question.metric} of the {base_name(verdict)} is not a finite number."
            return cls("…", "nothing to compare with", sentence)
        found = [row for row in tickets if _is_as_good(row, verdict)]
        if found:
            return _found(verdict, min(found, key=lambda row: row.density), show)
        return _none_found(verdict, tickets, show)

    @classmethod
    def without_metric(cls, smallest: float | None, path: str, metrics: Sequence[str] = ()) -> Headline:
        """The answer of runs in which nothing was monitored, or no round has finished.

        Args:
            smallest: The density of the smallest trained ticket; ``None`` if no round has finished.
            path: The folder of the runs.
            metrics: The metrics that were logged.
        """
        if smallest is None:
            return cls("…", "no round yet", "No round has finished yet.")
        sentence = "Nothing was monitored, so tickets are not compared with the dense network."
        if metrics:
            name = metrics[0]
            sentence += (
                f" The logged metrics are {first_of(metrics, 8)}. To compare one of them, name it and its mode: "
                f"lightning-lottery report {path} --metric {name} --mode {'min' if 'loss' in name else 'max'}"
            )
        return cls(percent(smallest), "of the weights in the smallest ticket", sentence)


def _is_as_good(row: VerdictRow, verdict: Verdict) -> bool:
    if len(verdict.seeds) >= ENOUGH_SEEDS:
        return row.word in ("winning", "matching")
    difference, question = row.metric.to_dense, verdict.question
    if difference is None or row.missing or verdict[0].missing:
        return False
    gain = difference.mean if question.mode == "max" else -difference.mean
    return gain >= -question.tolerance


def _found(verdict: Verdict, row: VerdictRow, show: Show) -> Headline:
    if len(verdict.seeds) >= ENOUGH_SEEDS:
        meaning = "of the weights are enough"
    else:
        meaning = f"of the weights did as well as the {base_name(verdict)}, in {_few_seeds(verdict)}"
    larger = [other for other in map(verdict.__getitem__, verdict) if 0 < other.round < row.round]
    worse = [percent(other.density) for other in larger if other.word == "worse"]
    but = f" Larger tickets are worse: {', '.join(worse)}." if worse else ""
    return Headline(percent(row.density), meaning, f"{_compared(verdict, row, show)}{but}", row)


def _none_found(verdict: Verdict, tickets: list[VerdictRow], show: Show) -> Headline:
    sign = 1 if verdict.question.mode == "max" else -1
    compared = [(sign * row.metric.to_dense.mean, -row.density, row) for row in tickets if row.metric.to_dense]
    sentence = "No ticket has a value to compare."
    if compared:
        best = max(compared, key=lambda entry: entry[:2])[2]
        sentence = f"The closest: {_compared(verdict, best, show)}"
    many = len(tickets) > 1
    if len(verdict.seeds) >= ENOUGH_SEEDS:
        meaning = f"ticket{'s are' if many else ' is'} shown to be as good as the {base_name(verdict)}"
    else:
        meaning = f"ticket{'s' * many} did as well as the {base_name(verdict)}, in {_few_seeds(verdict)}"
    return Headline(f"0 of {len(tickets)}", meaning, sentence)


def _without_dense(verdict: Verdict, row: VerdictRow, show: Show) -> Headline:
    sentence = (
        f"Round 0 was not trained, so nothing is compared with the dense network. The smallest ticket has "
        f"{verdict.question.metric} {spread_text(row.metric, show)}."
    )
    return Headline(percent(row.density), "of the weights in the smallest ticket", sentence)


def _compared(verdict: Verdict, row: VerdictRow, show: Show) -> str:
    """The values of a ticket and of round 0 with the same seeds, their difference, and how certain it is."""
    question, difference = verdict.question, row.metric.to_dense
    own, dense = row.metric.values, verdict[0].metric.values
    both = [Quantity({seed: values[seed] for seed in own if seed in dense}) for values in (own, dense)]
    values = (
        f"The ticket with {percent(row.density)} of the prunable weights reaches {question.metric} "
        f"{spread_text(both[0], show)}, the {base_name(verdict)} {spread_text(both[1], show)}"
    )
    if difference is None or difference.n < ENOUGH_SEEDS:
        few = "One seed shows" if both[0].n == 1 else "Two seeds show"
        return f"{values}. {few} little: a verdict needs {ENOUGH_SEEDS} or more."
    certain = f"{100 * question.confidence:g} % interval, {difference.n} seeds"
    adjusted = ""
    if is_uncertain(row, question):
        adjusted = f", but not when p is adjusted for all {len(verdict) - 1} tickets"
    word = word_text(row, question) + adjusted
    return f"{values}: difference {interval_text(difference, show)} ({certain}), {word}."


def is_uncertain(row: VerdictRow, question: Question) -> bool:
    """Whether a ticket is called winning or worse, but not after the adjustment for the number of tickets."""
    p_holm = None if row.metric.to_dense is None else row.metric.to_dense.p_holm
    return row.word in ("winning", "worse") and p_holm is not None and p_holm >= 1 - question.confidence


def _few_seeds(verdict: Verdict) -> str:
    return "one seed" if len(verdict.seeds) == 1 else f"the mean of {len(verdict.seeds)} seeds"

"""What an experiment has shown, in one number and one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_lottery.analysis import ENOUGH_SEEDS, Verdict, VerdictRow
from lightning_lottery.report.verdict import Show, interval_text, shown_with, spread_text
from lightning_lottery.report.words import base_name, percent


@dataclass(frozen=True)
class Headline:
    """The answer that an experiment gives.

    Attributes:
        number: One number, such as ``7.78 %``.
        meaning: What the number is.
        sentence: What was found, and how certain it is.
        density: The density of the smallest ticket that is at least as good as the dense network; ``None`` if no
            ticket is, or that is unknown.
    """

    number: str
    meaning: str
    sentence: str
    density: float | None = None

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
        found = [row for row in tickets if _is_as_good(row, verdict)]
        if found:
            return _found(verdict, min(found, key=lambda row: row.density), show)
        return _none_found(verdict, tickets, show)

    @classmethod
    def without_metric(cls, smallest: float | None) -> Headline:
        """The answer of runs in which nothing was monitored, or no round has finished.

        Args:
            smallest: The density of the smallest trained ticket; ``None`` if no round has finished.
        """
        if smallest is None:
            return cls("…", "no round yet", "No round has finished yet.")
        sentence = (
            "Nothing was monitored, so tickets cannot be compared with the dense network. Write for example "
            "monitor='val_acc', mode='max', or name a metric for the report: --metric val_acc --mode max."
        )
        return cls(percent(smallest), "of the weights in the smallest ticket", sentence)


def _is_as_good(row: VerdictRow, verdict: Verdict) -> bool:
    if len(verdict.seeds) >= ENOUGH_SEEDS:
        return row.word in ("winning", "matching")
    difference, question = row.metric.to_dense, verdict.question
    if difference is None or row.missing:
        return False
    gain = difference.mean if question.mode == "max" else -difference.mean
    return gain >= -question.tolerance


def _found(verdict: Verdict, row: VerdictRow, show: Show) -> Headline:
    if len(verdict.seeds) < ENOUGH_SEEDS:
        what = "is at least as good as" if not verdict.question.tolerance else _within(verdict)
        start = f"The smallest ticket that {what} the {base_name(verdict)} keeps"
    else:
        start = f"The smallest {row.word} ticket keeps"
    sentence = f"{start} {percent(row.density)} of the prunable weights: {_compared(verdict, row, show)}"
    return Headline(percent(row.density), "of the weights are enough", sentence, row.density)


def _none_found(verdict: Verdict, tickets: list[VerdictRow], show: Show) -> Headline:
    sign = 1 if verdict.question.mode == "max" else -1
    compared = [row for row in tickets if row.metric.to_dense is not None]
    what = "is shown to win or match" if len(verdict.seeds) >= ENOUGH_SEEDS else "is at least as good as"
    sentence = f"No ticket {what} the {base_name(verdict)}."
    if compared:
        best = max(compared, key=lambda row: sign * (row.metric.to_dense.mean if row.metric.to_dense else 0.0))
        sentence += f" The one with {percent(best.density)} of the weights comes closest: "
        sentence += _compared(verdict, best, show)
    return Headline(f"0 of {len(tickets)}", f"tickets match the {base_name(verdict)}", sentence)


def _without_dense(verdict: Verdict, row: VerdictRow, show: Show) -> Headline:
    sentence = (
        f"Round 0 was not trained, so nothing is compared with the dense network. The smallest ticket has "
        f"{verdict.question.metric} {spread_text(row.metric, show)}."
    )
    return Headline(percent(row.density), "of the weights in the smallest ticket", sentence)


def _compared(verdict: Verdict, row: VerdictRow, show: Show) -> str:
    """The values of a ticket and of round 0, their difference, and the number of seeds."""
    question, seeds = verdict.question, len(verdict.seeds)
    values = f"{question.metric} {spread_text(row.metric, show)} against {spread_text(verdict[0].metric, show)}"
    difference = f"difference {interval_text(row.metric.to_dense, show)}"
    if seeds >= ENOUGH_SEEDS:
        return f"{values}, {difference} ({100 * question.confidence:g} % interval, {seeds} seeds)."
    many = "One seed shows" if seeds == 1 else "Two seeds show"
    return f"{values}, {difference}. {many} little: a study repeats this with more."


def _within(verdict: Verdict) -> str:
    return f"is at most {verdict.question.tolerance:g} worse than"

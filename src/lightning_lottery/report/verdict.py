"""A verdict as text."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from math import floor, log10

from lightning_lottery.analysis import Difference, Quantity, Question, Verdict, VerdictRow
from lightning_lottery.plain import first_of
from lightning_lottery.report.text import aligned

_WIDTH = 115


def verdict_text(verdict: Verdict) -> str:
    """All tables of a verdict, with what they mean."""
    question = verdict.question
    show = _decimals([row.metric for row in verdict.rows])
    parts = [_heading(verdict), _to_dense(verdict, show)]
    controls = [row for row in verdict.rows if not row.id.is_ticket]
    if any(row.metric.from_ticket is not None for row in controls):
        parts += [
            f"Tickets and their controls, {question.metric}:",
            _from_ticket(controls, lambda r: r.metric, show),
        ]
    if question.reach is not None:
        parts += _steps(verdict, controls)
    return "\n\n".join([*parts, "\n".join(textwrap.fill(note, _WIDTH) for note in _notes(verdict))])


def word_text(row: VerdictRow, question: Question) -> str:
    """The word of a row, with its tolerance; empty without a word."""
    if row.word == "matching":
        return f"matching within {question.tolerance:g}"
    return row.word or ""


def interval_text(difference: Difference | None, show: Callable[[float], str]) -> str:
    """A difference with its interval, such as ``+0.0050 [+0.0010, +0.0090]``; empty without a difference."""
    if difference is None:
        return ""
    signed = [
        _signed(value, show) for value in (difference.mean, difference.low, difference.high) if value is not None
    ]
    return signed[0] + (f" [{signed[1]}, {signed[2]}]" if len(signed) == 3 else "")


def _heading(verdict: Verdict) -> str:
    question, seeds = verdict.question, [str(seed) for seed in verdict.seeds]
    moment = {
        (False, "best"): "the best value of each training",
        (False, "end"): "its value at the end of each training",
        (True, "best"): "on the test set, with the checkpoint of the best validation",
        (True, "end"): "on the test set, with the last weights",
    }[question.is_test, question.at]
    many = f"{len(seeds)} seeds ({first_of(seeds, 10)})"
    return f"{question.metric}, {moment}: mean ± sample standard deviation of {many}"


def _base(verdict: Verdict) -> str:
    """What round 0 is called: a search may start from a ticket."""
    return "round 0" if 0 in verdict and verdict[0].density < 1 else "dense"


def _to_dense(verdict: Verdict, show: Callable[[float], str]) -> str:
    question = verdict.question
    interval = f"- {_base(verdict)} [{100 * question.confidence:g} %]"
    table = [["round", "branch", "density", "n", question.metric, interval, "p", "p (Holm)", "verdict"]]
    for row in verdict.rows:
        difference = row.metric.to_dense
        table.append(
            [
                *(str(row.round), row.branch, f"{row.density:.4f}", str(row.metric.n), _spread(row.metric, show)),
                *(interval_text(difference, show), *_p_values(difference), word_text(row, question)),
            ]
        )
    return aligned(table, left={1, 8})


def _from_ticket(
    rows: Iterable[VerdictRow], take: Callable[[VerdictRow], Quantity | None], show: Callable[[float], str]
) -> str:
    table = [["round", "control", "density", "n", "ticket - control", "p", "p (Holm)"]]
    for row in rows:
        quantity = take(row)
        difference = None if quantity is None else quantity.from_ticket
        if difference is not None:
            cells = [str(row.round), row.branch, f"{row.density:.4f}", str(difference.n)]
            table.append([*cells, interval_text(difference, show), *_p_values(difference)])
    return aligned(table, left={1})


def _steps(verdict: Verdict, controls: Sequence[VerdictRow]) -> list[str]:
    question = verdict.question
    show = _decimals([row.steps for row in verdict.rows if row.steps is not None])
    table = [["round", "branch", "density", "reached by", "step", f"- {_base(verdict)}", "p", "p (Holm)"]]
    for row in verdict.rows:
        if (steps := row.steps) is not None:
            cells = [str(row.round), row.branch, f"{row.density:.4f}", f"{steps.n} of {row.metric.n} seeds"]
            difference = interval_text(steps.to_dense, show)
            table.append([*cells, _spread(steps, show), difference, *_p_values(steps.to_dense)])
    parts = [
        f"The step at which the monitored metric first reaches {question.reach:g}, over the seeds that reach it "
        "(negative differences: earlier):",
        aligned(table, left={1}),
    ]
    if any(row.steps is not None and row.steps.from_ticket is not None for row in controls):
        parts.append(_from_ticket(controls, lambda row: row.steps, show))
    return parts


def _notes(verdict: Verdict) -> list[str]:
    """What the tables mean, and what limits them."""
    question = verdict.question
    better = "above" if question.mode == "max" else "below"
    matching = f"no part of it is worse than 0 by more than {question.tolerance:g}" if question.tolerance else ""
    notes = [
        "Differences are paired: of the same seed, with Student's t intervals of their mean.",
        f"winning: the interval lies {better} 0. "
        f"matching: {matching or 'needs a tolerance, for example 0.005; none was given'}. "
        "worse: the interval lies on the other side of 0. inconclusive: none of these, or fewer than 3 seeds.",
    ]
    compared = sum(row.id.is_ticket and row.metric.to_dense is not None for row in verdict.rows)
    if compared > 1:
        notes.append(
            f"{compared} tickets are {compared} tests, and intervals and words hold for one of them at a time. "
            "p (Holm) is adjusted for all tests of its kind (tickets, controls, tickets against controls)."
        )
    if question.is_test:
        notes.append("Nothing was selected by the test set, unless you select by this table.")
    elif question.is_monitored:
        notes.append(
            f"{question.metric} is monitored: best values, smallest_matching and stop rules select by it, so it "
            "should come from validation data."
        )
    for row in verdict.rows:
        if row.missing:
            seeds = first_of([str(seed) for seed in row.missing], 10)
            notes.append(f"{row.id} has no finite value for the seeds {seeds}.")
        elif row.metric.n < len(verdict.seeds):
            notes.append(f"{row.id} was trained by {row.metric.n} of {len(verdict.seeds)} seeds.")
    return notes


def _spread(quantity: Quantity, show: Callable[[float], str]) -> str:
    if quantity.mean is None:
        return "-"
    return show(quantity.mean) + ("" if quantity.deviation is None else f" ± {show(quantity.deviation)}")


def _p_values(difference: Difference | None) -> list[str]:
    values = [None, None] if difference is None else [difference.p, difference.p_holm]
    return ["" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}" for value in values]


def _signed(value: float, show: Callable[[float], str]) -> str:
    text = show(value)
    return text if text.startswith("-") else f"+{text}"


def _decimals(quantities: Sequence[Quantity]) -> Callable[[float], str]:
    """Formats numbers so that small deviations have two digits, but not that of every outlier."""
    deviations = sorted(quantity.deviation for quantity in quantities if quantity.deviation)
    sizes = deviations or [abs(quantity.mean) / 100 for quantity in quantities if quantity.mean] or [1.0]
    decimals = min(max(1 - floor(log10(sizes[len(sizes) // 4])), 0), 12)
    return lambda value: f"{value:.{decimals}f}"

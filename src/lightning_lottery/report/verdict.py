"""A verdict as text."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from math import floor, log10

from lightning_lottery.analysis import PairedDifference, Quantity, Question, Verdict, VerdictRow
from lightning_lottery.plain import first_of
from lightning_lottery.report.text import aligned

_WIDTH = 115
Show = Callable[[float], str]


def verdict_text(verdict: Verdict) -> str:
    """All tables of a verdict, with what they mean."""
    question = verdict.question
    show = shown_with([row.metric for row in verdict.rows])
    parts = [_heading(verdict), _main_table(verdict, show)]
    controls = [row for row in verdict.rows if not row.id.is_ticket]
    if any(row.metric.from_ticket is not None for row in controls):
        table = _control_table(controls, lambda row: row.metric, show)
        parts += [f"Tickets and their controls, {question.metric}:", table]
    if question.reach is not None:
        parts += _steps(verdict, controls)
    return "\n\n".join([*parts, "\n".join(textwrap.fill(note, _WIDTH) for note in _notes(verdict))])


def word_text(row: VerdictRow, question: Question, scale: float = 1.0) -> str:
    """The word of a row, such as ``matching within 0.005``; an empty string if it has none.

    Args:
        row: The row.
        question: What was asked.
        scale: What the tolerance is multiplied by, such as 100 for percentage points.
    """
    if row.word == "matching":
        return f"matching within {scale * question.tolerance:g}"
    return row.word or ""


def interval_text(difference: PairedDifference | None, show: Show, scale: float = 1.0) -> str:
    """A difference with its interval, such as ``+0.0050 [+0.0010, +0.0090]``; an empty string for ``None``.

    Args:
        difference: The difference.
        show: Formats a number.
        scale: What numbers are multiplied by, such as 100 for percentage points.
    """
    if difference is None:
        return ""
    ends = [_signed(scale * end, show) for end in (difference.low, difference.high) if end is not None]
    return _signed(scale * difference.mean, show) + (f" [{', '.join(ends)}]" if ends else "")


def _heading(verdict: Verdict) -> str:
    question, seeds = verdict.question, [str(seed) for seed in verdict.seeds]
    moment = {
        (False, "best"): "the best value of each training",
        (False, "end"): "its value at the end of each training",
        (True, "best"): "on the test set, with the weights of the best validation",
        (True, "end"): "on the test set, with the last weights",
    }[question.is_test, question.at]
    many = f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''} ({first_of(seeds, 10)})"
    return f"{question.metric}, {moment}: mean ± sample standard deviation of {many}"


def _base(verdict: Verdict) -> str:
    """What round 0 is called: a search may start from a ticket."""
    return "round 0" if verdict[0].density < 1 else "dense"


def _main_table(verdict: Verdict, show: Show) -> str:
    question, is_compared = verdict.question, 0 in verdict
    table = [["round", "branch", "density", "n", question.metric]]
    if is_compared:
        table[0] += [f"- {_base(verdict)} [{100 * question.confidence:g} %]", "p", "p (Holm)", "verdict"]
    for row in verdict.rows:
        cells = [
            str(row.round),
            row.branch,
            f"{row.density:.4f}",
            str(row.metric.n),
            spread_text(row.metric, show),
        ]
        if is_compared:
            difference = row.metric.to_dense
            cells += [paired_text(difference, row.metric.n, show), *p_texts(difference), word_text(row, question)]
        table.append(cells)
    return aligned(table, left={1, 8} if is_compared else {1})


def _control_table(rows: Iterable[VerdictRow], take: Callable[[VerdictRow], Quantity | None], show: Show) -> str:
    table = [["round", "control", "density", "n", "ticket - control", "p", "p (Holm)"]]
    for row in rows:
        quantity = take(row)
        difference = None if quantity is None else quantity.from_ticket
        if difference is not None:
            cells = [str(row.round), row.branch, f"{row.density:.4f}", str(difference.n)]
            table.append([*cells, interval_text(difference, show), *p_texts(difference)])
    return aligned(table, left={1})


def _steps(verdict: Verdict, controls: Sequence[VerdictRow]) -> list[str]:
    question, is_compared = verdict.question, 0 in verdict
    table = [["round", "branch", "density", "reached by", "step"]]
    table[0] += [f"- {_base(verdict)}", "p", "p (Holm)"] if is_compared else []
    for row in verdict.rows:
        if (steps := row.steps) is not None:
            reached = f"{steps.n} of {len(row.seeds_with_curve)}" if row.seeds_with_curve else "unknown"
            cells = [str(row.round), row.branch, f"{row.density:.4f}", reached, spread_text(steps, _whole)]
            if is_compared:
                cells += [paired_text(steps.to_dense, len(row.seeds_with_curve), _whole), *p_texts(steps.to_dense)]
            table.append(cells)
    value = "the value of round 0 with the same seed" if question.reach == "dense" else f"{question.reach:g}"
    parts = [
        f"Step at which the monitored metric first reaches {value} (negative differences: earlier):",
        aligned(table, left={1}),
    ]
    if any(row.steps is not None and row.steps.from_ticket is not None for row in controls):
        parts.append(_control_table(controls, lambda row: row.steps, _whole))
    return parts


def _notes(verdict: Verdict) -> list[str]:
    """What the tables mean, and what limits them."""
    question = verdict.question
    notes = [*_meaning(verdict), *_many_tests(verdict)]
    if question.is_monitored:
        notes.append(
            f"{question.metric} is monitored: best values, smallest_matching and stop rules select by it, so it "
            "should come from validation data."
        )
    notes += limits(verdict, "table", lambda row: str(row.id))
    if any(row.steps is not None and row.steps.n < len(row.seeds_with_curve) for row in verdict.rows):
        notes.append(
            "Where not all seeds reach the value, steps and differences are those of the seeds that do. That "
            "favours the training that fails more often."
        )
    return notes


def limits(verdict: Verdict, what: str, name: Callable[[VerdictRow], str]) -> list[str]:
    """What limits the numbers: where they were measured, and which seeds lack them.

    Args:
        verdict: The verdict.
        what: What shows them, such as ``"table"``.
        name: Names a training.
    """
    question, notes = verdict.question, []
    if question.is_validation:
        notes.append("All test metrics equal the validation metrics: the test set seems to be the validation set.")
    elif question.is_test:
        notes.append(f"Nothing was selected by the test set, unless you select by this {what}.")
    for row in verdict.rows:
        if row.missing:
            seeds = first_of([str(seed) for seed in row.missing], 10)
            notes.append(f"{name(row)}: {question.metric} is not a finite number for seed {seeds}.")
        elif row.metric.n < len(verdict.seeds):
            done = "tested" if question.is_test else "trained"
            notes.append(f"{name(row)} was {done} with {row.metric.n} of {len(verdict.seeds)} seeds.")
    return notes


def _meaning(verdict: Verdict) -> list[str]:
    question = verdict.question
    if 0 not in verdict:
        return ["Round 0 was not trained, so nothing is compared with the dense network."]
    better, worse = ("above", "below") if question.mode == "max" else ("below", "above")
    notes = [
        "Differences are paired: of the same seed, with Student's t intervals of their mean. (n=4): only 4 seeds "
        "have both trainings.",
        f"The first that applies: winning: the interval lies {better} 0. matching: no part of it is worse than 0 "
        f"by more than the tolerance. worse: it lies {worse} 0. inconclusive: none of these, fewer than 3 seeds, "
        "or a value is missing.",
    ]
    if not question.tolerance:
        notes.append("No tolerance was given, so hardly any ticket can match: use tolerance=0.005, for example.")
    return notes


def _many_tests(verdict: Verdict) -> list[str]:
    """How many words of tickets survive the adjustment for their number."""
    tested = [
        (row.word, row.metric.to_dense.p_holm)
        for row in verdict.rows
        if row.id.is_ticket and row.metric.to_dense is not None and row.metric.to_dense.p_holm is not None
    ]
    if len(tested) < 2:
        return []
    limit, parts = 1 - verdict.question.confidence, []
    for word in ("winning", "worse"):
        p_values = [p_value for other, p_value in tested if other == word]
        if p_values:
            parts.append(f"{sum(p_value < limit for p_value in p_values)} of {len(p_values)} {word}")
    note = (
        f"{len(tested)} tickets are {len(tested)} tests. Intervals and words hold for one of them at a time; "
        "p (Holm) is adjusted for all tests of its kind (tickets, controls, tickets against controls)."
    )
    return [note + (f" With it, p < {limit:g} for {' and '.join(parts)}." if parts else "")]


def spread_text(quantity: Quantity, show: Show) -> str:
    """Mean and standard deviation, such as ``0.9200 ± 0.0041``; ``-`` without a value."""
    if quantity.mean is None:
        return "-"
    return show(quantity.mean) + ("" if quantity.deviation is None else f" ± {show(quantity.deviation)}")


def paired_text(difference: PairedDifference | None, expected: int, show: Show) -> str:
    """A difference with its interval, and the number of pairs if that is not the expected one."""
    text = interval_text(difference, show)
    return text if difference is None or difference.n == expected else f"{text} (n={difference.n})"


def p_texts(difference: PairedDifference | None) -> list[str]:
    """The p-value, alone and adjusted; empty where it is unknown."""
    values = [None, None] if difference is None else [difference.p, difference.p_holm]
    return ["" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}" for value in values]


def _signed(value: float, show: Show) -> str:
    text = show(value)
    if value and not text.strip("-0."):  # it would look like 0
        text = f"{value:.0e}"
    return text if text.startswith("-") else f"+{text}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def shown_with(quantities: Sequence[Quantity]) -> Show:
    """A format with a common number of decimals: two digits for the lower quartile of the deviations."""
    deviations = sorted(quantity.deviation for quantity in quantities if quantity.deviation)
    sizes = deviations or [abs(quantity.mean) / 100 for quantity in quantities if quantity.mean] or [1.0]
    decimals = max(1 - floor(log10(sizes[len(sizes) // 4])), 0)
    return lambda value: f"{value:.{decimals}f}" if decimals < 9 else f"{value:.4g}"

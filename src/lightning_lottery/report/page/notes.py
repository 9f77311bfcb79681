"""What the tables of the page mean, and what limits them: each note only where it applies."""

from lightning_lottery.analysis import ENOUGH_SEEDS, PaperComparison, Verdict
from lightning_lottery.literature import trainings_text
from lightning_lottery.report.headline import is_uncertain
from lightning_lottery.report.page.tables import training_name
from lightning_lottery.report.verdict import limits
from lightning_lottery.report.words import base_name, metric_name


def verdict_notes(verdict: Verdict) -> list[str]:
    """Notes below the tables of tickets and controls."""
    question = verdict.question
    notes = _words(verdict) if 0 in verdict else []
    if question.is_monitored and question.at == "best":
        notes.append(
            f"Each value is the best one of a training, so {question.metric} should come from validation data, "
            "and is a little too good."
        )
    return [*notes, *limits(verdict, "page", training_name)]


def _words(verdict: Verdict) -> list[str]:
    """What the words mean, and how many of them are left after the adjustment for their number."""
    if len(verdict.seeds) < ENOUGH_SEEDS:
        return [f"With fewer than {ENOUGH_SEEDS} seeds, differences have no intervals and tickets no verdict."]
    question = verdict.question
    better, worse = ("above", "below") if question.mode == "max" else ("below", "above")
    matching = ""
    if question.tolerance:
        matching = f" Matching: no part of it is more than {question.tolerance:g} worse than 0."
    notes = [
        f"Differences are between trainings with the same seed, with {100 * question.confidence:g} % intervals "
        f"of Student's t. Winning: the interval lies {better} 0.{matching} Worse: it lies {worse} 0. "
        "Inconclusive: none of these, or a value is missing."
    ]
    if not question.tolerance:
        notes.append("No tolerance was set, so that a ticket must be better than the dense network to count.")
    rows = [verdict[number] for number in verdict if number]
    if len(rows) > 1:
        is_starred = any(is_uncertain(row, question) for row in rows)
        star = " A star marks words that do not hold after this adjustment." if is_starred else ""
        notes.append(
            f"Each interval holds for one density; p (Holm) is adjusted for all {len(rows)} tickets.{star}"
        )
    return notes


def step_notes(verdict: Verdict) -> list[str]:
    """Notes below the table of steps."""
    asked = [row for row in verdict.rows if row.steps is not None and row.seeds_with_curve]
    never = [training_name(row) for row in asked if row.steps is not None and not row.steps.n]
    notes = [f"Never as good as the {base_name(verdict)}: {'; '.join(never)}."] if never else []
    if any(row.steps is not None and 0 < row.steps.n < len(row.seeds_with_curve) for row in asked):
        notes.append("Where only some seeds reach it, the mean favours the training that fails more often.")
    return notes


def published_notes(comparison: PaperComparison) -> list[str]:
    """Notes below the published numbers: whose they are, and in what the runs differ from them."""
    numbers, question = comparison.published, comparison.question
    has_deviations = any(value.deviation is not None for value in numbers.values.values())
    spread = "means and sample standard deviations (SDs)" if has_deviations else "means, without deviations,"
    notes = [
        f"Published: {numbers.paper.title}, arXiv:{numbers.paper.arxiv}; {spread} of "
        f"{trainings_text(numbers.paper, numbers.network)}, from {numbers.paper.source}."
    ]
    if has_deviations:
        notes.append(f"A deviation of {numbers.paper.trainings} trainings is itself uncertain.")
    if not question.is_test:
        notes.append(
            f"The authors report test accuracy. This table has {metric_name(question)}. To measure test accuracy: "
            "lightning-lottery analyse test FOLDER --config CONFIG"
        )
    steps = numbers.network.steps
    if steps is not None and comparison.steps is not None and round(comparison.steps) != steps:
        notes.append(
            f"The authors train for {steps:,} steps, these runs for {comparison.steps:,.0f} "
            f"({comparison.steps / steps:.0%})."
        )
    notes.append(
        "Network, data set and method are the same. Learning rates, batch sizes and the number of images were not "
        "compared."
    )
    return notes

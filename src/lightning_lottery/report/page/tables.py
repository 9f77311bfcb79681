"""The tables of the page, as cells of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import mean

from lightning_lottery.analysis import (
    ENOUGH_SEEDS,
    ComparedSize,
    PairedDifference,
    PaperComparison,
    Verdict,
    VerdictRow,
)
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.literature import PublishedValue
from lightning_lottery.report.headline import is_uncertain
from lightning_lottery.report.page.experiment import Experiment
from lightning_lottery.report.verdict import Show, p_texts, paired_text, shown_with, spread_text, word_text
from lightning_lottery.report.words import base_name, branch_name, bytes_text, percent
from lightning_lottery.storage import Cost, RoundRecord, RunFolder, Runs
from lightning_lottery.tickets import TICKET_BRANCH


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        header: The names of its columns.
        rows: Its cells. The first of each row names it.
        words: For each row, a word that colours it, such as ``"winning"``; empty for none.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str] = ()

    def word(self, row: int) -> str:
        """The word that colours a row."""
        return self.words[row] if row < len(self.words) else ""


def ticket_table(verdict: Verdict) -> Table:
    """The tickets: their metric, and with several seeds intervals and the words of the verdict.

    A star marks words that do not hold when the p-value is adjusted for the number of tickets.
    """
    question, show = verdict.question, shown_with([row.metric for row in verdict.rows])
    is_compared, has_words = 0 in verdict, 0 in verdict and len(verdict.seeds) >= ENOUGH_SEEDS
    header = ["density", "round", question.metric]
    header += [_against(f"difference to the {base_name(verdict)}", verdict)] if is_compared else []
    header += ["p (Holm)", "verdict"] if has_words else []
    rows, words = [], []
    for row in map(verdict.__getitem__, verdict):
        cells = [percent(row.density), str(row.round), spread_text(row.metric, show)]
        cells += [_paired(row.metric.to_dense, row.metric.n, show)] if is_compared else []
        if has_words:
            star = " *" if is_uncertain(row, question) else ""
            cells += [p_texts(row.metric.to_dense)[1], word_text(row, question) + star]
        rows.append(cells)
        words.append(row.word or "" if has_words else "")
    return Table("Tickets", header, rows, words)


def published_table(comparison: PaperComparison) -> Table:
    """The accuracies of the runs, published ones, and the difference, also in the authors' deviations."""
    show = shown_with([row.ours for row in comparison.rows])
    rows = [
        [
            percent(row.density),
            spread_text(row.ours, show),
            "-" if row.theirs is None else _published_text(row.theirs),
            _difference_text(row),
        ]
        for row in comparison.rows
        if row.ours.n
    ]
    has_deviations = any(row.in_deviations is not None for row in comparison.rows)
    header = ["density", "these runs", "published", f"difference{' (in their SDs)' if has_deviations else ''}"]
    what = f"{comparison.question.metric} of {branch_name(comparison.branch)}"
    return Table(f"{what}, and published test accuracy", header, rows)


def _published_text(value: PublishedValue) -> str:
    deviation = "" if value.deviation is None else f" ± {value.deviation:.4f}"
    return f"{value.mean:.{3 if value.deviation is None else 4}f}{deviation}"


def _difference_text(row: ComparedSize) -> str:
    if row.difference is None:
        return "-"
    deviations = "" if row.in_deviations is None else f" ({row.in_deviations:+.1f})"
    return f"{row.difference:+.4f}{deviations}"


def control_table(verdict: Verdict) -> Table | None:
    """The controls: their metric, and how much better the ticket of the round is; ``None`` without controls."""
    show = shown_with([row.metric for row in verdict.rows])
    controls = [row for row in verdict.rows if row.id.is_control]
    if not controls:
        return None
    has_words = len(verdict.seeds) >= ENOUGH_SEEDS
    header = ["control", "density", verdict.question.metric, _against("ticket - control", verdict)]
    rows = []
    for row in sorted(controls, key=lambda row: (-row.density, row.branch)):
        difference = row.metric.from_ticket
        cells = [branch_name(row.branch), percent(row.density), spread_text(row.metric, show)]
        cells.append(_paired(difference, row.metric.n, show))
        rows.append([*cells, p_texts(difference)[1]] if has_words else cells)
    return Table("Controls", [*header, "p (Holm)"] if has_words else header, rows)


def step_table(verdict: Verdict) -> Table:
    """The trainings that reach the value of round 0: at which step, and with how many seeds."""
    header = ["training", "step", _against("difference", verdict), "seeds"]
    rows = []
    for row in verdict.rows:
        steps, known = row.steps, len(row.seeds_with_curve)
        if steps is not None and steps.n:
            cells = [training_name(row), spread_text(steps, _whole), _paired(steps.to_dense, known, _whole)]
            rows.append([*cells, f"{steps.n} of {known}"])
    return Table(f"Steps, and their difference to the {base_name(verdict)}", header, rows)


def training_name(row: VerdictRow) -> str:
    """A ticket by its density, a control by its name and density."""
    return percent(row.density) if row.id.is_ticket else f"{branch_name(row.branch)}, {percent(row.density)}"


def _paired(difference: PairedDifference | None, expected: int, show: Show) -> str:
    """A difference, with its interval for three or more seeds."""
    if difference is not None and difference.n < ENOUGH_SEEDS:
        difference = replace(difference, low=None, high=None)
    return paired_text(difference, expected, show)


def size_table(runs: Runs) -> Table | None:
    """How large the tickets are: prunable weights, all parameters, and their files; ``None`` before any round."""
    rows, title = [], "Sizes"
    for number, records in _tickets(runs).items():
        first = records[0]
        left = first.parameters - first.prunable + first.kept
        numbers = [f"{first.kept:,}", f"{left:,}", f"{first.parameters / left:.3g}"]
        rows.append([percent(first.density), str(number), *numbers, _file_size(runs, number, first)])
        title = f"Sizes, of {first.prunable:,} prunable weights and {first.parameters:,} parameters"
    header = ["density", "round", "prunable weights", "all parameters", "times smaller", "ticket file"]
    return Table(title, header, rows) if rows else None


def cost_table(runs: Runs) -> Table | None:
    """What the experiment cost in trainings of round 0, ``None`` if that is unknown.

    It is the mean over the finished seeds. If none has finished, it is the cost of the first seed so far.
    """
    finished = [run for run in runs.values() if run.is_finished] or list(runs.values())[:1]
    try:
        costs = [run.records.cost() for run in finished]
    except ConfigurationError:  # round 0 has not finished, or is not trained
        return None
    branches = list(dict.fromkeys(branch for cost in costs for branch in cost.by_branch))
    parts = {branch_name(b): [cost.by_branch[b] for cost in costs if b in cost.by_branch] for b in branches}
    if len(parts) > 1:
        parts["all"] = costs
    header = ["trainings of", "steps", "FLOPs", "FLOPs without pruned weights", "time"]
    title = "Cost, in trainings of round 0"
    if len(costs) > 1:
        title += f" (mean of {len(costs)} finished seeds)"
    elif not finished[0].is_finished or len(runs) > 1:
        title += f" (seed {finished[0].seed}{'' if finished[0].is_finished else ' so far'})"
    return Table(title, header, [[name, *_costs(part)] for name, part in parts.items()])


def _costs(costs: Sequence[Cost]) -> list[str]:
    return [
        _mean([cost.trainings for cost in costs]),
        _mean([cost.flops for cost in costs]),
        _mean([cost.sparse_flops for cost in costs]),
        _mean([cost.seconds for cost in costs]),
    ]


def _mean(amounts: Sequence[float | None]) -> str:
    known = [amount for amount in amounts if amount is not None]
    return f"{mean(known):.2f}" if known and len(known) == len(amounts) else "unknown"


def _tickets(runs: Runs) -> dict[int, list[RoundRecord]]:
    """The records of tickets by round."""
    found: dict[int, list[RoundRecord]] = {}
    for run in runs.values():
        for number, record in run.records[TICKET_BRANCH].items():
            found.setdefault(number, []).append(record)
    return dict(sorted(found.items()))


def _file_size(runs: Runs, number: int, record: RoundRecord) -> str:
    for run in runs.values():
        path = RunFolder(run.path).ticket_path(record.id)
        if path.is_file():
            return bytes_text(path.stat().st_size)
    return "removed"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _against(what: str, verdict: Verdict) -> str:
    has_intervals = len(verdict.seeds) >= ENOUGH_SEEDS
    return what + (f" [{100 * verdict.question.confidence:g} %]" if has_intervals else "")


def comparison_table(experiments: Sequence[Experiment]) -> Table:
    """The answers of several experiments, and in what they differ: a column for each."""
    names = dict.fromkeys(name for one in experiments for name in one.differs)
    own = [name for name in names if not name.startswith("_")]  # LightningCLI adds hyperparameters of its own
    rows = [
        ["seeds", *(str(len(one.runs)) for one in experiments)],
        ["round 0", *(_dense(one.verdict) for one in experiments)],
        ["smallest ticket as good", *map(_smallest, experiments)],
        ["cost, in trainings of round 0", *(_cost(one.runs) for one in experiments)],
        *([name, *(one.differs.get(name, "") for one in experiments)] for name in own),
    ]
    return Table("Results, and what differs", ["", *(one.name for one in experiments)], rows)


def _smallest(experiment: Experiment) -> str:
    if experiment.verdict is None or 0 not in experiment.verdict:
        return ""
    found = experiment.headline.row
    return "none" if found is None else percent(found.density)


def _dense(verdict: Verdict | None) -> str:
    if verdict is None or 0 not in verdict:
        return ""
    show = shown_with([row.metric for row in verdict.rows])
    return f"{verdict.question.metric} {spread_text(verdict[0].metric, show)}"


def _cost(runs: Runs) -> str:
    table = cost_table(runs)
    return "unknown" if table is None else table.rows[-1][1]

"""The values that a verdict compares, taken from the runs of a study."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any, Literal, TypedDict

from lightning_lottery.analysis.held_out import is_validation
from lightning_lottery.analysis.question import Question
from lightning_lottery.analysis.verdict import Training, Verdict
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import first_of
from lightning_lottery.storage import Replicate, RoundRecord, Runs
from lightning_lottery.tickets import RoundId


class VerdictOptions(TypedDict, total=False):
    """The arguments of :meth:`Replicates.verdict` beside the metric."""

    on: Literal["fit", "test"] | None
    mode: Literal["min", "max"] | None
    at: Literal["best", "end"] | None
    tolerance: float
    reach: float | Literal["dense"] | None
    confidence: float


_DEFAULTS: VerdictOptions = {
    "on": None,
    "mode": None,
    "at": None,
    "tolerance": 0.0,
    "reach": None,
    "confidence": 0.95,
}


def question_about(runs: Runs, metric: str | None, options: VerdictOptions) -> Question:
    """Completes and checks the arguments of :meth:`Replicates.verdict`, which see.

    Raises:
        ConfigurationError: The metric is unknown or was not monitored, an argument is invalid, or no round has
            finished.
    """
    first = next(iter(runs.values()))
    if not any(run.records for run in runs.values()):
        raise ConfigurationError("No round has finished yet in these runs.")
    name = first.monitor if metric is None else metric
    if name is None:
        raise ConfigurationError(
            "Nothing was monitored in these runs, so name a metric and its mode, as in metric='val_acc', "
            f"mode='max'. There are {_known(runs)}."
        )
    is_test = _is_test(runs, name, options["on"])
    is_monitored = name == first.monitor and not is_test
    mode = _mode(first, name, is_monitored, options["mode"])
    if options["reach"] is not None and first.monitor is None:
        raise ConfigurationError("reach is a value of the monitored metric, but nothing was monitored.")
    at = options["at"] or ("best" if is_monitored else "end")
    if at == "best" and not is_monitored and not is_test:
        raise ConfigurationError(
            f"at='best' is only known for the monitored metric {first.monitor!r} and on the test set. Use "
            f"at='end' for {name!r}."
        )
    return Question(
        metric=name,
        mode=mode,
        at=at,
        is_test=is_test,
        is_validation=is_test and all(is_validation(run.records, run.tests) for run in runs.values() if run.tests),
        is_monitored=is_monitored,
        tolerance=options["tolerance"],
        reach=options["reach"],
        confidence=options["confidence"],
    )


def _is_test(runs: Runs, name: str, on: str | None) -> bool:
    """Whether a metric is taken from the test set; by default only if it was not logged during the fit."""
    logged, tested = {*_logged(runs), next(iter(runs.values())).monitor}, _tested(runs)
    if on not in (None, "fit", "test"):
        raise ConfigurationError(f"on={on!r} is neither 'fit' nor 'test'. Write on='fit' or on='test'.")
    if name not in (tested if on == "test" else logged if on == "fit" else logged | set(tested)):
        where = {"test": " on the test set", "fit": " among the logged metrics"}.get(on or "", "")
        raise ConfigurationError(f"metric={name!r} is not known{where}. There are {_known(runs)}.")
    return on == "test" or (on is None and name not in logged)


def _mode(
    run: Replicate, name: str, is_monitored: bool, mode: Literal["min", "max"] | None
) -> Literal["min", "max"]:
    if not is_monitored:
        if mode is None:
            raise ConfigurationError(
                f"metric={name!r} also needs mode. Write mode='max' if large values are good, as for an accuracy, "
                "or mode='min' if small values are good, as for a loss."
            )
        return mode
    own: Literal["min", "max"] = "max" if run.mode == "max" else "min"
    if mode not in (None, own):
        raise ConfigurationError(
            f"mode={mode!r} contradicts the runs, which monitored {name!r} with mode={own!r}."
        )
    return own


def _logged(runs: Runs) -> dict[str, None]:
    return dict.fromkeys(name for run in runs.values() for record in run.records for name in record.metrics)


def _tested(runs: Runs) -> dict[str, None]:
    tests = [test for run in runs.values() for test in run.tests.values()]
    return dict.fromkeys(name for test in tests for metrics in (test.last, test.best) for name in metrics or ())


def _known(runs: Runs) -> str:
    logged, tested = list(_logged(runs)), list(_tested(runs))
    parts = [f"the logged metrics {first_of(logged, 8)}"] if logged else []
    parts += [f"the test metrics {first_of(tested, 8)}"] if tested else []
    return " and ".join(parts) or "no metrics"


def verdict_of(runs: Runs, metric: str | None = None, options: VerdictOptions | None = None) -> Verdict:
    """The verdict on some runs; for the arguments see :meth:`Replicates.verdict`.

    Raises:
        ConfigurationError: See :func:`question_about`; or SciPy is not installed.
    """
    question = question_about(runs, metric, {**_DEFAULTS, **(options or {})})
    return Verdict.of(trainings_of(runs, question), list(runs), question)


def trainings_of(runs: Runs, question: Question) -> list[Training]:
    """What all seeds have measured, by training, in the order of training."""
    return [_training(entry, runs, question) for entry in full_trainings(runs)]


def full_trainings(runs: Runs) -> list[RoundId]:
    """All full trainings, in the order of the run that has most of them; seeds may end at different rounds."""
    longest = max((run.records for run in runs.values()), key=len)
    ids = [record.id for record in longest]
    others = {record.id for run in runs.values() for record in run.records} - set(ids)
    return [entry for entry in (*ids, *sorted(others)) if not entry.is_search]


def _training(entry: RoundId, runs: Runs, question: Question) -> Training:
    records = {seed: record for seed, run in runs.items() if (record := _record(run, entry)) is not None}
    if question.is_test:
        measured = {seed: record for seed, record in records.items() if _metrics(runs[seed], record, question)}
    else:
        measured = records
    found = {seed: _value(runs[seed], record, question) for seed, record in measured.items()}
    values = {seed: value for seed, value in found.items() if value is not None and isfinite(value)}
    curves = {seed: record for seed, record in records.items() if record.curve}
    steps = {}
    for seed, record in curves.items():
        value = _to_reach(runs[seed], question)
        step = None if value is None else record.first_reached(value, runs[seed].mode or "min")
        if step is not None:
            steps[seed] = float(step)
    return Training(
        id=entry,
        density=next(iter(records.values())).density,
        values=values,
        missing=[seed for seed in measured if seed not in values],
        steps=steps,
        seeds_with_curve=list(curves),
    )


def _to_reach(run: Replicate, question: Question) -> float | None:
    """The value of the monitored metric that the trainings of a run are to reach, if any."""
    if question.reach != "dense":
        return question.reach
    dense = _record(run, RoundId(0))
    if dense is None:
        return None
    is_at_end = question.at == "end" and question.is_monitored
    value = dense.metrics.get(question.metric) if is_at_end else dense.best_value
    return value if value is not None and isfinite(value) else None


def _record(run: Replicate, entry: RoundId) -> RoundRecord | None:
    return next((record for record in run.records if record.id == entry), None)


def _value(run: Replicate, record: RoundRecord, question: Question) -> float | None:
    if question.at == "best" and not question.is_test:
        return record.best_value
    return _metrics(run, record, question).get(question.metric)


def _metrics(run: Replicate, record: RoundRecord, question: Question) -> Mapping[str, float]:
    """The metrics at the end, or those on the test set; empty if that was not measured."""
    if not question.is_test:
        return record.metrics
    test = run.tests.get(record.id)
    return {} if test is None else (test.best if question.at == "best" else test.last) or {}


def rows_of(run: Replicate) -> Iterator[dict[str, Any]]:
    """The rows of a table of all trainings of a run: its numbers, and all metrics by name."""
    for record in run.records:
        numbers = {name: value for name, value in asdict(record).items() if isinstance(value, (int, float, str))}
        test = run.tests.get(record.id)
        measured = {} if test is None else {"last": test.last or {}, "best": test.best or {}}
        tests = {f"{name} (test, {at})": value for at, part in measured.items() for name, value in part.items()}
        row: dict[str, Any] = {"seed": run.seed, **numbers}
        yield row | {name: v for name, v in {**record.metrics, **tests}.items() if name not in row}

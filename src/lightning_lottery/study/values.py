"""The values that a verdict compares, taken from the runs of a study."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any, Literal

from lightning_lottery.analysis import Question, Training
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.plain import first_of
from lightning_lottery.storage import RoundRecord
from lightning_lottery.study.replicate import Replicate
from lightning_lottery.tickets import RoundId

Runs = Mapping[int, Replicate]


def question_about(
    runs: Runs,
    metric: str | None,
    mode: Literal["min", "max"] | None,
    at: Literal["best", "end"] | None,
    tolerance: float,
    reach: float | None,
    confidence: float,
) -> Question:
    """Completes and checks the arguments of :meth:`Replicates.verdict`, which see.

    Raises:
        ConfigurationError: The metric is unknown or was not monitored, or an argument is invalid.
    """
    first = next(iter(runs.values()))
    name = first.monitor if metric is None else metric
    if name is None:
        raise ConfigurationError(
            "Nothing was monitored in these runs, so write which metric to compare, as in verdict('val_acc', "
            f"mode='max'). There are {_known(runs)}."
        )
    is_monitored = name == first.monitor
    logged = _logged(runs)
    if not is_monitored and name not in logged and name not in _tested(runs):
        raise ConfigurationError(f"metric={name!r} is not known. There are {_known(runs)}.")
    if mode is None:
        if not is_monitored:
            raise ConfigurationError(
                f"metric={name!r} also needs mode. Write mode='max' if large values are good, as for an accuracy, "
                "or mode='min' if small values are good, as for a loss."
            )
        mode = "max" if first.mode == "max" else "min"
    if reach is not None and first.monitor is None:
        raise ConfigurationError(f"reach={reach!r} is a value of the monitored metric, but nothing was monitored.")
    is_test = not is_monitored and name not in logged
    at = at or ("best" if is_monitored else "end")
    if at == "best" and not is_monitored and not is_test:
        raise ConfigurationError(
            f"at='best' is only known for the monitored metric {first.monitor!r} and on the test set. Write "
            f"verdict({name!r}, at='end')."
        )
    return Question(name, mode, at, is_test, is_monitored, tolerance, reach, confidence)


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


def trainings_of(runs: Runs, question: Question) -> list[Training]:
    """What all seeds have measured, by training, in the order of training."""
    ids = dict.fromkeys(record.id for run in runs.values() for record in run.records)
    return [_training(entry, runs, question) for entry in sorted(ids, key=list(_order(runs)).index)]


def _order(runs: Runs) -> list[RoundId]:
    """All trainings, in the order of the run that has most of them; seeds may end at different rounds."""
    longest = max((run.records for run in runs.values()), key=len)
    ids = [record.id for record in longest]
    others = {record.id for run in runs.values() for record in run.records} - set(ids)
    return [*ids, *sorted(others)]


def _training(entry: RoundId, runs: Runs, question: Question) -> Training:
    records = {seed: record for seed, run in runs.items() if (record := _record(run, entry)) is not None}
    found = {seed: _value(runs[seed], record, question) for seed, record in records.items()}
    values = {seed: value for seed, value in found.items() if value is not None and isfinite(value)}
    steps = {}
    if question.reach is not None:
        for seed, record in records.items():
            if (step := record.first_reached(question.reach, runs[seed].mode or "min")) is not None:
                steps[seed] = float(step)
    density = next(iter(records.values())).density
    missing = [seed for seed in records if seed not in values]
    return Training(entry, density, values, steps, missing)


def _record(run: Replicate, entry: RoundId) -> RoundRecord | None:
    return next((record for record in run.records if record.id == entry), None)


def _value(run: Replicate, record: RoundRecord, question: Question) -> float | None:
    if question.is_test:
        test = run.tests.get(record.id)
        metrics = None if test is None else test.best if question.at == "best" else test.last
        return None if metrics is None else metrics.get(question.metric)
    return record.best_value if question.at == "best" else record.metrics.get(question.metric)


def rows_of(run: Replicate) -> Iterator[dict[str, Any]]:
    """The rows of a table of all trainings of a run: its numbers, and all metrics by name."""
    for record in run.records:
        numbers = {name: value for name, value in asdict(record).items() if isinstance(value, (int, float, str))}
        test = run.tests.get(record.id)
        last = {} if test is None else test.last or {}
        best = {} if test is None else {f"{name} (best)": value for name, value in (test.best or {}).items()}
        row: dict[str, Any] = {"seed": run.seed, **numbers}
        yield row | {name: v for name, v in {**record.metrics, **last, **best}.items() if name not in row}

"""Test metrics of the rounds of a run, from their checkpoints."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.files import local_path
from lightning_lottery.storage import Records, RoundRecord, RoundTest, RunFolder, rounding
from lightning_lottery.tickets import RoundId

Metrics = Mapping[str, float]


def record_tests(
    dirpath: str | os.PathLike[str], evaluate: Callable[[str], Metrics | Sequence[Metrics]]
) -> dict[RoundId, RoundTest]:
    """Measures every finished round of a run on a test set, except search rounds, and records that in its folder.

    Nothing is selected by the results: the run is over, and stop rules, ``smallest_matching`` and best values only
    know the metric that was monitored. Each round is measured with its last weights, and with those of the best
    value of the monitored metric, as far as checkpoints of them exist.

    Args:
        dirpath: The run folder.
        evaluate: Is called with the path of a checkpoint, and returns its test metrics by name, or a list with one
            dictionary per data loader, as ``trainer.test`` does:
            ``lambda path: trainer.test(model, data, ckpt_path=path)``.

    Returns:
        What was recorded, by training; also in ``tests.jsonl``.

    Raises:
        ConfigurationError: The folder contains no finished round, no checkpoint of a round exists, or ``evaluate``
            returns no metrics.
    """
    folder = RunFolder.at(local_path(os.fspath(dirpath), "record_tests('runs/exp/seed_0', ...)"))
    if folder is None or not (records := folder.read_records()):
        raise ConfigurationError(f"{str(dirpath)!r} is not a run folder with finished rounds.")
    tests = folder.read_tests()
    paths = {record.id: _checkpoints(folder, record) for record in records if not record.id.is_search}
    if not any(chain.from_iterable(paths.values())):
        raise ConfigurationError(
            f"No checkpoint of the last or best weights of a round in {str(dirpath)!r} exists. Let the Trainer "
            "keep both: callbacks=[..., ModelCheckpoint(), ModelCheckpoint(monitor='val_acc', mode='max')]."
        )
    for entry, (last, best) in paths.items():
        measured = {path: _measured(evaluate, path) for path in dict.fromkeys((last, best)) if path is not None}
        if measured:
            known = tests.get(entry, RoundTest(entry.number, entry.branch))
            tests[entry] = replace(  # what was measured before stays if its checkpoint is gone now
                known,
                last=known.last if last is None else measured[last],
                best=known.best if best is None else measured[best],
            )
            folder.write_tests(tests.values())
    if is_validation(records, tests):
        rank_zero_warn(
            "The test metrics equal the validation metrics of every round. Is the test set the validation set?"
        )
    return tests


def _checkpoints(folder: RunFolder, record: RoundRecord) -> tuple[str | None, str | None]:
    """The checkpoints with the last and the best weights of a round."""
    last = folder.checkpoint_at(record.id, record.last_step)
    if record.best_step is None or record.last_step <= 0:  # where Lightning counts no steps, all look alike
        return last, None
    return last, folder.checkpoint_at(record.id, record.best_step)


def _measured(evaluate: Callable[[str], Metrics | Sequence[Metrics]], path: str) -> dict[str, float]:
    metrics = evaluate(path)
    by_loader = [metrics] if isinstance(metrics, Mapping) else metrics
    found = {name: float(value) for part in by_loader for name, value in part.items()}
    if not found:
        raise ConfigurationError(
            f"There are no test metrics for {path}. The data need a test_dataloader, and the LightningModule a "
            "test_step that logs metrics."
        )
    return found


def is_validation(records: Records, tests: Mapping[RoundId, RoundTest]) -> bool:
    """Whether ``test`` metrics equal ``val`` metrics in all rounds, so that both sets are probably the same."""
    pairs = [
        (value, record.metrics[other])
        for record in records
        for name, value in ((tests[record.id].last or {}) if record.id in tests else {}).items()
        if (other := name.replace("test", "val")) in record.metrics
    ]
    return len(pairs) > 1 and all(abs(test - val) <= rounding(test, val) for test, val in pairs)

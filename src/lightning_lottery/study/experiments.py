"""Groups runs by experiment, for a report that compares several."""

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path

from lightning_lottery.analysis import VerdictOptions
from lightning_lottery.report import Experiment, name_of, value_text
from lightning_lottery.rules import differences
from lightning_lottery.storage import Replicate, RunDescription
from lightning_lottery.study.replicates import Replicates, read_runs


def experiments(
    paths: Sequence[str | os.PathLike[str]],
    metric: str | None = None,
    options: VerdictOptions | None = None,
    ignore: Sequence[str] = (),
) -> list[Experiment]:
    """Reads runs, and groups them by experiment.

    Runs belong together if they differ only in their seeds. Of two runs with the same seed, the second begins
    another experiment.

    Args:
        paths: Folders. All run folders in them and below them are read, finished or not.
        metric: The metric to compare; by default the monitored one.
        options: See :meth:`Replicates.verdict`.
        ignore: Patterns of names of hyperparameters that may differ within an experiment.

    Returns:
        The experiments in the order of the paths.

    Raises:
        ConfigurationError: A path is not a folder, no run was found, or the metric or an option is invalid.
        LotteryError: The records of a run are damaged.
    """
    grouped = _groups([run for path in paths for run in read_runs([path])], ignore)
    groups = [Replicates(group, ignore) for group in grouped]
    names = _names([group.folder for group in groups])
    differs = _differs([group[0].description for group in grouped], ignore)
    return [
        Experiment.of(name, group, metric, options, values)
        for name, group, values in zip(names, groups, differs, strict=True)
    ]


def _groups(runs: Sequence[Replicate], ignore: Sequence[str]) -> list[list[Replicate]]:
    groups: list[list[Replicate]] = []
    seen: set[Path] = set()
    for run in runs:
        if (real := run.path.resolve()) in seen:
            continue
        seen.add(real)
        fitting = [group for group in groups if _belongs(run, group, ignore)]
        # Rather to the runs in the same folder than to equal ones elsewhere.
        fitting.sort(key=lambda group: group[-1].path.parent != run.path.parent)
        if fitting:
            fitting[0].append(run)
        else:
            groups.append([run])
    return groups


def _belongs(run: Replicate, group: Sequence[Replicate], ignore: Sequence[str]) -> bool:
    is_new = all(run.seed != other.seed for other in group)
    return is_new and not differences(group[0].description, run.description, ignore)


def _names(paths: Sequence[Path]) -> list[str]:
    """Different names for folders: as many of their last parts as are needed, or numbers for the same folder."""
    distinct = list(dict.fromkeys(paths))
    names = list(map(name_of, distinct))
    for more in range(1, max(len(path.parts) for path in paths)):
        names = [
            name_of(path, more) if names.count(name) > 1 else name
            for path, name in zip(distinct, names, strict=True)
        ]
    found = dict(zip(distinct, names, strict=True))
    return [
        f"{found[path]} ({paths[:place].count(path) + 1})" if paths.count(path) > 1 else found[path]
        for place, path in enumerate(paths)
    ]


def _differs(descriptions: Sequence[RunDescription], ignore: Sequence[str]) -> list[dict[str, str]]:
    """For each description, the values of all properties in which they differ."""
    found = [entry for other in descriptions for entry in differences(descriptions[0], other, ignore)]
    named = dict.fromkeys(
        (entry.part, entry.name) for entry in found if entry.part not in ("prunable", "structure")
    )
    is_other_network = len(named) < len({(entry.part, entry.name) for entry in found})
    return [
        {name: value_text(getattr(description, part).get(name)) for part, name in named}
        | ({"prunable weights": f"{_prunable(description):,}"} if is_other_network else {})
        for description in descriptions
    ]


def _prunable(description: RunDescription) -> int:
    return sum(map(prod, description.prunable.values()))

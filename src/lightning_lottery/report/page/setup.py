"""How an experiment was made: configuration, seeds, versions, and the command that repeats it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from lightning_lottery.report.words import value_text
from lightning_lottery.storage import Runs

# Values of a Trainer's description that mean that nothing was set.
_UNSET: tuple[Any, ...] = (None, "None", "", [], {})
# The parts of the environment that say what was trained, not where.
_WHAT_WAS_TRAINED = ("module", "data")


@dataclass(frozen=True)
class Setup:
    """Everything that is needed to repeat an experiment.

    Attributes:
        groups: Names and values, by title.
        about: What was trained, in a few words; empty if that is unknown.
        commands: The command of each seed, as far as it is known. Each option is a part of its own.
    """

    groups: Mapping[str, Mapping[str, str]]
    about: str
    commands: Sequence[Sequence[str]]

    @classmethod
    def of(cls, runs: Runs) -> Setup:
        """Reads it from the descriptions of some runs."""
        known = [run.description for run in runs.values()]
        first = known[0]
        groups = {
            "LotteryTicketCallback": _shown([one.arguments for one in known]),
            "Trainer": _shown([one.trainer for one in known]),
            "Hyperparameters of the LightningModule": _shown([one.hyperparameters for one in known]),
            "Network": {
                "prunable layers": str(len(first.prunable)),
                "prunable weights": f"{sum(map(prod, first.prunable.values())):,}",
                "fingerprint": first.structure,
            },
            "Seeds": {"seeds": ", ".join(map(str, runs)), "set by seed_everything": _seeded(runs)},
            "Machine": _shown([one.environment for one in known], lambda name: name not in _WHAT_WAS_TRAINED),
            "Versions": _shown([one.provenance for one in known], lambda name: name.endswith("_version")),
            "Run folders": {f"seed {seed}": str(run.path) for seed, run in runs.items()},
        }
        commands = dict.fromkeys(run.description.command for run in runs.values() if run.description.command)
        shown = {title: values for title, values in groups.items() if values}
        return cls(shown, _about(runs), [re.split(r" (?=--)", command) for command in commands])


def _about(runs: Runs) -> str:
    first = next(iter(runs.values()))
    classes = [name for part in _WHAT_WAS_TRAINED if (name := first.description.environment.get(part))]
    sizes = [f"{record.parameters:,} parameters" for record in first.records][:1]
    return ", ".join([*([" on ".join(classes)] if classes else []), *sizes])


def _shown(
    each: Sequence[Mapping[str, Any]], is_shown: Callable[[str], bool] = lambda name: True
) -> dict[str, str]:
    """The values that are set, as text: of several runs, all different ones."""
    names = dict.fromkeys(name for values in each for name in values if is_shown(name))
    found = {
        name: dict.fromkeys(value_text(values[name]) for values in each if values.get(name) not in _UNSET)
        for name in names
    }
    return {name.removesuffix("_version"): " or ".join(values) for name, values in found.items() if values}


def _seeded(runs: Runs) -> str:
    known = [run.description.seed_everything is not None for run in runs.values()]
    return "yes" if all(known) else "no" if not any(known) else "some"

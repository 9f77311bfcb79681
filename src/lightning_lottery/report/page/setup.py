"""How an experiment was made: configuration, seeds, versions, and the command that repeats it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from lightning_lottery.storage import Replicate

# Values of a Trainer's description that mean that nothing was set.
_UNSET: tuple[Any, ...] = (None, "None", "", [], {})


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
    def of(cls, runs: Mapping[int, Replicate]) -> Setup:
        """Reads it from the descriptions of some runs."""
        first = next(iter(runs.values())).description
        versions = {
            name.removesuffix("_version"): text for name, text in first.provenance.items() if "version" in name
        }
        groups = {
            "LotteryTicketCallback": _shown(first.arguments),
            "Trainer": _shown(first.trainer),
            "Hyperparameters of the LightningModule": _shown(first.hyperparameters),
            "Network": {
                "prunable layers": str(len(first.prunable)),
                "prunable weights": f"{sum(map(prod, first.prunable.values())):,}",
                "fingerprint": first.structure,
            },
            "Seeds": {"seeds": ", ".join(map(str, runs)), "set by seed_everything": _seeded(runs)},
            "Machine": {n: text for n, text in first.environment.items() if n != "module"},
            "Versions": versions,
            "Run folders": {f"seed {seed}": str(run.path) for seed, run in runs.items()},
        }
        commands = dict.fromkeys(run.description.command for run in runs.values() if run.description.command)
        shown = {title: values for title, values in groups.items() if values}
        return cls(shown, _about(runs), [re.split(r" (?=--)", command) for command in commands])


def _about(runs: Mapping[int, Replicate]) -> str:
    first = next(iter(runs.values()))
    sizes = [f"{record.parameters:,} parameters" for record in first.records][:1]
    return ", ".join([*filter(None, [first.description.environment.get("module")]), *sizes])


def _shown(values: Mapping[str, Any]) -> dict[str, str]:
    """The values that are set, as text."""
    return {name: _text(value) for name, value in values.items() if value not in _UNSET}


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _seeded(runs: Mapping[int, Replicate]) -> str:
    known = [run.description.seed_everything is not None for run in runs.values()]
    return "yes" if all(known) else "no, so the initial values cannot be drawn again" if not any(known) else "some"

"""The numbers that authors have published."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Literal

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.literature.papers import FOLDER, Paper, PaperNetwork, paper_of, papers
from lightning_lottery.plain import check_choice, first_of

Pruning = Literal["iterative", "one-shot"]
# A rule or criterion with the number of epochs that it was published for, if any.
_Method = tuple[str, int | None]
_REST = r"(, optimizer='restore')?"
# The expressions that are understood, as they are typed or as `lottery.json` shows them; whether they name epochs.
_METHODS = {
    r"(?P<name>ToInit|LearningRate)\(\)": False,
    r"(?P<name>Reinitialize|Random|Magnitude|SNIP|GraSP|SynFlow)\(.*\)": False,
    rf"(?P<name>LearningRate)\((to=)?'init'{_REST}\)": False,
    rf"(?P<name>LearningRate)\((to=)?['\"](?P<epochs>\d+) epochs['\"]{_REST}\)": True,
    rf"(?P<name>ToEpoch)\((epoch=)?(?P<epochs>\d+){_REST}\)": True,
    r"(?P<name>FineTune)\((epochs=)?(?P<epochs>\d+)(, (lr=)?[\d.e-]+)?\)": True,
}
_ABOUT = {
    "ToInit": "rewinding to initialisation",
    "ToEpoch": "rewinding to epoch {}",
    "FineTune": "fine-tuning for {} epochs",
    "Reinitialize": "fresh initial values",
}
_COLUMNS = ("network", "pruning", "method", "epochs")


@dataclass(frozen=True)
class PublishedValue:
    """A published test accuracy.

    Attributes:
        mean: The mean over the authors' trainings, in [0, 1].
        deviation: Their sample standard deviation; ``None`` if it is not published.
    """

    mean: float
    deviation: float | None


@dataclass(frozen=True)
class Published:
    """A published curve: test accuracy by density.

    Attributes:
        paper: The paper.
        network: The network, and how the authors trained it.
        method: The method, in the words of this package: ``ToEpoch(12)``.
        pruning: ``"iterative"``, or ``"one-shot"`` if each size was pruned from the dense network at once.
        values: The accuracies by density, from 1 downwards.
    """

    paper: Paper
    network: PaperNetwork
    method: str
    pruning: Pruning
    values: Mapping[float, PublishedValue]

    @property
    def about(self) -> str:
        """The method in words."""
        name, epochs = _parsed(self.method) or (self.method, None)
        if name == "LearningRate":
            return f"learning-rate rewinding to {'the start' if epochs is None else f'epoch {epochs}'}"
        return _ABOUT.get(name, f"{name} at initialisation").format(epochs)

    def at(self, density: float) -> PublishedValue | None:
        """The value at a density, if one was published within 1 % of it (the counts of networks are rounded)."""
        near = [other for other in self.values if abs(other - density) <= 0.01 * density]
        return self.values[near[0]] if near else None


def published(paper: str, network: str, method: str, pruning: Pruning | None = None) -> Published:
    """Finds the numbers that the authors of a paper have published.

    Args:
        paper: The paper: ``"renda2020"`` (arXiv:2003.02389) or ``"tanaka2020"`` (arXiv:2006.05467, figure 6).
        network: The network: ``"resnet20"``, ``"resnet56"``, ``"resnet110"``, ``"resnet50"``; or ``"vgg16"``.
        method: What was compared, as an expression of this package: for renda2020 ``"ToInit()"``,
            ``"ToEpoch(12)"``, ``"LearningRate()"``, ``"LearningRate('12 epochs')"``, ``"FineTune(182)"`` (epochs)
            or ``"Reinitialize()"``; for tanaka2020 a criterion such as ``"SynFlow()"``.
        pruning: ``"iterative"`` or ``"one-shot"``; by default iterative if it was published.

    Returns:
        The test accuracies.

    Raises:
        ConfigurationError: These numbers were not published. The message lists what was.
    """
    networks = paper_of(paper).networks
    if not networks:
        with_numbers = [key for key, entry in papers().items() if entry.networks]
        raise ConfigurationError(f"The package has no numbers of {paper}. It has those of {with_numbers}.")
    check_choice("network", network, tuple(networks))
    check_choice("pruning", pruning, (None, "iterative", "one-shot"))
    kinds: Sequence[Pruning] = ("iterative", "one-shot") if pruning is None else (pruning,)
    for kind in kinds:
        if (found := find_published(paper, network, method, kind)) is not None:
            return found
    known = dict.fromkeys(_shown(key) for name, kind, key in _table(paper) if name == network and kind in kinds)
    asked = f"method={method!r}" if pruning is None else f"method={method!r} and pruning={pruning!r}"
    near = get_close_matches(method, known, n=3, cutoff=0.5)
    listed = first_of([*near, *(name for name in known if name not in near)], 12) or "none"
    raise ConfigurationError(f"{paper} has no numbers of {network} with {asked}. It has {listed}.")


def find_published(paper: str, network: str, method: str, pruning: Pruning) -> Published | None:
    """What :func:`published` finds; ``None`` if it was not published. Paper and network must be known ones."""
    entry, wanted = paper_of(paper), _parsed(method)
    if wanted is None or (values := _table(paper).get((network, pruning, wanted))) is None:
        return None
    return Published(entry, entry.networks[network], _shown(wanted), pruning, values)


def _parsed(method: str) -> _Method | None:
    """The class of an expression, and its number of epochs; ``None`` if it is not one that could be published."""
    for pattern, epochs in _METHODS.items():
        if (found := re.fullmatch(pattern, method.strip())) is not None:
            return found["name"], int(found["epochs"]) if epochs else None
    return None


def _shown(method: _Method) -> str:
    name, epochs = method
    if epochs is None:
        return f"{name}()"
    return f"{name}('{epochs} epochs')" if name == "LearningRate" else f"{name}({epochs})"


@cache
def _table(paper: str) -> Mapping[tuple[str, str, _Method], Mapping[float, PublishedValue]]:
    """All curves of a paper."""
    curves = {}
    with (FOLDER / f"{paper}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            network, pruning, method, epochs = (row.pop(name) for name in _COLUMNS)
            values = {float(density): _value(cell.split(" ± ")) for density, cell in row.items() if cell}
            curves[network, pruning, (method, int(epochs) if epochs else None)] = MappingProxyType(values)
    return MappingProxyType(curves)


def _value(parts: Sequence[str]) -> PublishedValue:
    mean, *deviation = (float(f"{part}e-2") for part in parts)  # from %, without rounding
    return PublishedValue(mean, deviation[0] if deviation else None)

"""The papers whose experiments can be repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml

from lightning_lottery.errors import ConfigurationError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class PaperNetwork:
    """A network of a paper, and how its authors trained it.

    Attributes:
        name: Its name for people.
        dataset: The name of the data set, that of the class in ``lightning_lottery.vision`` if it has one.
        input_shape: Channels, height and width of an image.
        layers: Number of prunable parameters.
        weights: Number of prunable weights.
        steps: Steps of a training; ``None`` if they are unknown here.
        final_lr: The learning rate at the end of a training, which is that of fine-tuning; ``None`` if it is
            unknown here.
        dense_trainings: The number of trainings behind the mean of the dense network; ``None`` if it is that of
            the paper.
    """

    name: str
    dataset: str
    input_shape: list[int]
    layers: int
    weights: int
    steps: int | None = None
    final_lr: float | None = None
    dense_trainings: int | None = None


@dataclass(frozen=True)
class Paper:
    """A paper.

    Attributes:
        key: Its short name, such as ``renda2020``.
        authors: The authors and the year.
        title: Its title.
        arxiv: Its number at arXiv.
        trainings: The number of trainings behind each published mean, except that of a network with
            ``dense_trainings``; 0 without published numbers.
        source: Where the numbers are from.
        networks: The networks with published numbers, by key.
    """

    key: str
    authors: str
    title: str
    arxiv: str
    trainings: int = 0
    source: str = ""
    networks: Mapping[str, PaperNetwork] = field(default_factory=lambda: MappingProxyType({}))


@cache
def papers() -> Mapping[str, Paper]:
    """All papers by key."""
    content = yaml.safe_load((FOLDER / "papers.yaml").read_text(encoding="utf-8"))
    return MappingProxyType({key: _paper(key, values) for key, values in content.items()})


def _paper(key: str, values: dict[str, object]) -> Paper:
    networks = values.pop("networks", {})
    assert isinstance(networks, dict)
    known = MappingProxyType({name: PaperNetwork(**network) for name, network in networks.items()})
    return Paper(key, **values, networks=known)  # type: ignore[arg-type]


def trainings_text(paper: Paper, network: PaperNetwork) -> str:
    """The number of trainings behind published means, in words."""
    dense = "" if network.dense_trainings is None else f" (dense: {network.dense_trainings})"
    return f"{paper.trainings} trainings{dense}"


def paper_of(key: str) -> Paper:
    """The paper with a key.

    Raises:
        ConfigurationError: No paper has this key.
    """
    if key not in papers():
        raise ConfigurationError(f"{key!r} is not a known paper. These are: {', '.join(papers())}.")
    return papers()[key]

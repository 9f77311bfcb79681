"""The recipes: configurations of the papers' experiments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.literature import Paper, Published, papers, published

FOLDER = Path(__file__).parent
PREFIX = "recipe:"


@dataclass(frozen=True)
class Recipe:
    """The configuration of an experiment.

    Attributes:
        name: Its name, such as ``renda2020/resnet20/late``.
        paper: The paper; ``None`` for protocols of our own.
        network: The network and the data set, for people.
        method: How tickets are found, for people.
        configs: The files of the configuration. Each overlays those before it.
        published: What its authors have published; ``None`` if the package does not have it.
    """

    name: str
    paper: Paper | None
    network: str
    method: str
    configs: Sequence[Path]
    published: Published | None


@cache
def recipes() -> Sequence[Recipe]:
    """All recipes, in the order of papers."""
    index = yaml.safe_load((FOLDER / "index.yaml").read_text(encoding="utf-8"))
    return tuple(recipe for group, values in index.items() for recipe in _recipes_of(group, values))


def _recipes_of(group: str, values: Mapping[str, Any]) -> Iterator[Recipe]:
    """The recipes of a paper, from its part of the index."""
    paper = papers().get(group)
    for key, network in values["networks"].items():
        for method, about in {"": values["default"], **values.get("methods", {})}.items():
            name = "/".join(filter(None, (group, key, method)))
            overlays = [FOLDER / group / f"{part}.yaml" for part in ("base", key, method) if part]
            configs = [FOLDER / "base.yaml", *(path for path in overlays if path.exists())]
            expression = values.get("published", {}).get(method)
            numbers = None if expression is None else published(group, key, expression)
            yield Recipe(name, paper, network, about, configs, numbers)


def recipe(name: str) -> Recipe:
    """The recipe with a name.

    Raises:
        ConfigurationError: No recipe has this name.
    """
    known = {entry.name: entry for entry in recipes()}
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.4) or [*known][:3]
        raise ConfigurationError(
            f"{name!r} is not a recipe. Similar names: {', '.join(near)}. `lightning-lottery recipes` lists all."
        )
    return known[name]


def with_files(words: Sequence[str]) -> list[str]:
    """A command line in which every ``--config recipe:<name>`` is replaced by the files of the recipe.

    Raises:
        ConfigurationError: No recipe has this name.
    """
    found: list[str] = []
    for word in words:
        option, _, value = word.rpartition("=")
        if not value.startswith(PREFIX):
            found.append(word)
            continue
        option = option or found.pop()  # --config recipe:x, or --config=recipe:x
        for path in recipe(value.removeprefix(PREFIX)).configs:
            found += [option, str(path)]
    return found

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
CONFIGS = FOLDER / "configs"
RECIPE_PREFIX = "recipe:"


@dataclass(frozen=True)
class Recipe:
    """The configuration of an experiment.

    Attributes:
        name: Its name, such as ``renda2020/resnet20/late``.
        paper: The paper; ``None`` for protocols of our own.
        task: The network and the data set, for people.
        method: How tickets are found, for people.
        configs: The files of the configuration. Each overlays those before it.
        published: What its authors have published; ``None`` if the package does not have it.
    """

    name: str
    paper: Paper | None
    task: str
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
    paper, folders = papers().get(group), [name for name in (values.get("like"), group) if name]
    for key, task in values["networks"].items():
        for method, about in {"": values["default"], **values.get("methods", {})}.items():
            name = "/".join(filter(None, (group, key, method)))
            places = [(folder, part) for part in ("base", key, method) if part for folder in folders]
            overlays = [CONFIGS / folder / f"{part}.yaml" for folder, part in places]
            configs = [CONFIGS / "base.yaml", *(path for path in overlays if path.exists())]
            expression = values.get("published", {}).get(method)
            numbers = None if expression is None else published(group, key, expression)
            yield Recipe(name, paper, task, about, configs, numbers)


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


def expand_recipes(words: Sequence[str]) -> list[str]:
    """A command line in which every ``--config recipe:<name>`` is replaced by the files of the recipe.

    Raises:
        ConfigurationError: No recipe has this name, ``--config`` is missing, or there are several recipes.
    """
    found: list[str] = []
    expanded: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        if not equals:
            option, value = found[-1] if found else "", word
        if option not in ("--config", "-c") or not value.startswith(RECIPE_PREFIX):
            if word.startswith(RECIPE_PREFIX) and not option.startswith("-"):
                raise ConfigurationError(f"{word!r} is not an option. Write --config {word}.")
            found.append(word)
            continue
        if not equals:
            found.pop()
        expanded.append(value)
        for path in recipe(value.removeprefix(RECIPE_PREFIX)).configs:
            found += [option, str(path)]
    if len(expanded) > 1:
        raise ConfigurationError(
            f"{' and '.join(expanded)} would be mixed. Pass one recipe; files of your own may follow it."
        )
    return found

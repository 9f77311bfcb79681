"""The command ``recipes``: lists the experiments of papers, and shows one of them."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_lottery.literature import Published, trainings_text
from lightning_lottery.report import aligned, percent
from lightning_lottery.vision import RECIPE_PREFIX, Recipe, recipe, recipes

_HEADER = ["recipe", "method", "published test accuracy"]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument(
        "name",
        nargs="?",
        help="A recipe, to see its files and published numbers; or a paper, to list its recipes.",
    )


def show_recipes(options: Namespace) -> None:
    """Lists all recipes or those of a paper, or shows one.

    Args:
        options: The options of :func:`add_arguments`.

    Raises:
        ConfigurationError: No recipe has this name.
    """
    name = (options.name or "").removeprefix(RECIPE_PREFIX)
    listed = [entry for entry in recipes() if name in ("", entry.name.partition("/")[0])]
    print(_list(listed) if listed else _details(recipe(name)))


def name_of_configs(configs: Sequence[str]) -> str:
    """A name for the folder of a study: that of its recipe, or else of its last file."""
    for config in configs:
        if config.startswith(RECIPE_PREFIX):
            return config.removeprefix(RECIPE_PREFIX).replace("/", "-")
    return Path(configs[-1]).stem


def _list(listed: Sequence[Recipe]) -> str:
    rows = [[entry.name, entry.method, _summary(entry.published)] for entry in listed]
    header, line, *lines = aligned([_HEADER, *rows], left=range(3)).splitlines()
    parts = [f"{header}\n{line}"]
    shown = iter(lines)
    for paper, of_paper in groupby(listed, lambda entry: entry.paper):
        title = "Short protocols of our own" if paper is None else f"{paper.authors}, arXiv:{paper.arxiv}"
        for task, of_task in groupby(of_paper, lambda entry: entry.task):
            parts.append("\n".join([f"{title}: {task}", *(next(shown) for _ in of_task)]))
    example = listed[0].name
    parts.append(
        f"Run one: lightning-lottery fit --config {RECIPE_PREFIX}{example}\n"
        f"With several seeds: lightning-lottery study --config {RECIPE_PREFIX}{example} --seeds 5\n"
        f"See all of it: lightning-lottery recipes {example}"
    )
    return "\n\n".join(parts)


def _summary(numbers: Published | None) -> str:
    """The values of the dense network and of the smallest published size."""
    if numbers is None:
        return ""
    smallest = min(numbers.values)
    dense, sparse = (f"{100 * numbers.values[density].mean:.1f} %" for density in (1.0, smallest))
    return f"dense {dense}, {percent(smallest)}: {sparse}"


def _value(numbers: Published, density: float) -> str:
    value = numbers.values[density]
    deviation = "" if value.deviation is None else f" ± {100 * value.deviation:.2f}"
    return f"{100 * value.mean:.{1 if value.deviation is None else 2}f}{deviation} %"


def _details(entry: Recipe) -> str:
    parts = [f"{entry.name}: {entry.task}; {entry.method}"]
    if entry.paper is not None:
        parts.append(f"{entry.paper.authors}: {entry.paper.title}, arXiv:{entry.paper.arxiv}")
    if (numbers := entry.published) is not None:
        rows = [["density", "test accuracy"]]
        rows += [[percent(density), _value(numbers, density)] for density in numbers.values]
        parts.append(
            f"Published: {numbers.about} ({numbers.method}), {numbers.pruning} pruning.\n"
            f"Means of {trainings_text(numbers.paper, numbers.network)}, from {numbers.paper.source}:\n\n"
            f"{aligned(rows)}"
        )
    parts += [f"# {path}\n{path.read_text(encoding='utf-8').rstrip()}" for path in entry.configs]
    parts.append(f"Run it: lightning-lottery fit --config {RECIPE_PREFIX}{entry.name}")
    return "\n\n".join(parts)

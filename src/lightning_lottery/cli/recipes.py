"""The command ``recipes``: lists the experiments of papers, and shows one of them."""

from itertools import groupby
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from lightning_lottery.literature import Published
from lightning_lottery.report import aligned, percent
from lightning_lottery.vision import PREFIX, Recipe, recipe, recipes

_HEADER = ["recipe", "network and data", "method", "published test accuracy"]


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("name", nargs="?", help="The name of a recipe, to see its files and published numbers.")


def show_recipes(options: Namespace) -> None:
    """Lists all recipes, or shows one.

    Args:
        options: The options of :func:`add_arguments`.

    Raises:
        ConfigurationError: No recipe has this name.
    """
    print(_list() if options.name is None else _details(recipe(options.name.removeprefix(PREFIX))))


def name_of_config(config: str) -> str:
    """A name for the folder of a study: that of the file or recipe."""
    if config.startswith(PREFIX):
        return config.removeprefix(PREFIX).replace("/", "-")
    return Path(config).stem


def _list() -> str:
    parts = []
    for paper, group in groupby(recipes(), lambda entry: entry.paper):
        rows = [[entry.name, entry.network, entry.method, _summary(entry.published)] for entry in group]
        if not any(row[-1] for row in rows):
            rows = [row[:-1] for row in rows]
        title = "Short protocols of our own" if paper is None else f"{paper.authors}, arXiv:{paper.arxiv}"
        parts.append(f"{title}\n\n{aligned([_HEADER[: len(rows[0])], *rows], left=range(4))}")
    example = recipes()[0].name
    parts.append(
        f"Run one: lightning-lottery fit --config {PREFIX}{example}\n"
        f"With several seeds: lightning-lottery study --config {PREFIX}{example} --seeds 5\n"
        f"See all of it: lightning-lottery recipes {example}"
    )
    return "\n\n".join(parts)


def _summary(numbers: Published | None) -> str:
    """The values of the dense network, of the middle one of the published sizes, and of the smallest."""
    if numbers is None:
        return ""
    smaller = [density for density in numbers.values if density < 1]
    chosen = (smaller[len(smaller) // 2], smaller[-1])
    others = [f"{percent(density)}: {_value(numbers, density)}" for density in chosen]
    return ", ".join([f"dense {_value(numbers, 1.0)}", *others])


def _value(numbers: Published, density: float) -> str:
    value = numbers.values[density]
    deviation = "" if value.deviation is None else f" ± {100 * value.deviation:.2f}"
    return f"{100 * value.mean:.{1 if value.deviation is None else 2}f}{deviation} %"


def _details(entry: Recipe) -> str:
    parts = [f"{entry.name}: {entry.network}; {entry.method}"]
    if entry.paper is not None:
        parts.append(f"{entry.paper.authors}: {entry.paper.title}, arXiv:{entry.paper.arxiv}")
    if entry.published is not None:
        numbers = entry.published
        rows = [["density", "test accuracy"]]
        rows += [[percent(density), _value(numbers, density)] for density in numbers.values]
        about = f"{numbers.method}, {numbers.pruning} pruning, means of {numbers.paper.trainings} trainings"
        parts.append(f"Published for {about}:\n\n{aligned(rows)}")
    parts += [f"# {path}\n{path.read_text(encoding='utf-8').rstrip()}" for path in entry.configs]
    parts.append(f"Run it: lightning-lottery fit --config {PREFIX}{entry.name}")
    return "\n\n".join(parts)

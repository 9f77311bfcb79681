"""Compares the descriptions of two runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from lightning_lottery.rules.description import alike
from lightning_lottery.storage import RunDescription


@dataclass(frozen=True)
class Difference:
    """A property in which two runs differ.

    Attributes:
        part: ``"arguments"``, ``"trainer"``, ``"prunable"``, ``"hyperparameters"`` or ``"structure"``.
        name: The name of the property.
        values: Its value in the first run and in the second.
    """

    part: str
    name: str
    values: tuple[Any, Any]


def differences(first: RunDescription, second: RunDescription, ignore: Sequence[str] = ()) -> list[Difference]:
    """Compares everything in two descriptions that influences the result, except the seed.

    Args:
        first: A description as it is read from its file.
        second: Another one.
        ignore: Patterns of names of hyperparameters that may differ.

    Returns:
        The differences. The structure of the network is only compared if everything else is equal.
    """
    found = []
    for part in ("arguments", "trainer", "prunable", "hyperparameters"):
        old, new = getattr(first, part), getattr(second, part)
        changed = [name for name in {**old, **new} if not alike(old.get(name), new.get(name))]
        if part == "hyperparameters":
            changed = [name for name in changed if not any(fnmatchcase(name, pattern) for pattern in ignore)]
        found += [Difference(part, name, (old.get(name), new.get(name))) for name in changed]
    if not found and first.structure != second.structure:
        found.append(Difference("structure", "structure", (first.structure, second.structure)))
    return found

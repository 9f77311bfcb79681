"""Numbers and lists in arguments and messages: checks and shows them, converts NumPy and PyTorch numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from numbers import Real
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from lightning_lottery.errors import ConfigurationError

Choice = TypeVar("Choice")
Interval = Literal[
    "above 0",
    "of at least 0",
    "between 0 and 1",
    "between 0 and 1, both excluded",
    "from 0 to below 1",
    "other than NaN or infinity",
]
_CONTAINS: dict[Interval, Callable[[float], bool]] = {
    "above 0": lambda number: 0 < number < math.inf,
    "of at least 0": lambda number: number >= 0,
    "between 0 and 1": lambda number: 0 <= number <= 1,
    "between 0 and 1, both excluded": lambda number: 0 < number < 1,
    "from 0 to below 1": lambda number: 0 <= number < 1,
    "other than NaN or infinity": math.isfinite,
}


def plain(value: Any) -> Any:
    """Converts numbers and arrays of NumPy and PyTorch, and fractions, also inside lists, tuples and dictionaries.

    Args:
        value: Any value.

    Returns:
        ``int``, ``float`` or ``bool``; lists of them for arrays. Anything else is returned unchanged.
    """
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if isinstance(value, Real) and not isinstance(value, (int, float)):  # such as a Fraction
        return float(value)
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def make_plain(arguments: Any) -> None:
    """Converts the fields of a dataclass with :func:`plain`, in place. Call it first in ``__post_init__``."""
    for entry in fields(arguments):
        object.__setattr__(arguments, entry.name, plain(getattr(arguments, entry.name)))


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list and the number of the others, for a message.

    Args:
        names: The names.
        most: How many to show.
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """The first line of an error, for a message; the name of its class if it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


def printable(text: str) -> str:
    """A text from a file, without characters that move the cursor or change colours."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def finite(value: Any) -> Any:
    """Converts NaN and infinity, which JSON does not have, to ``null``, ``"inf"`` and ``"-inf"``."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def check_list(what: str, value: object, example: str) -> None:
    """Checks that an argument is a list or another sequence, and not a string.

    Args:
        what: The name of the argument.
        value: Its value.
        example: What to write instead.

    Raises:
        ConfigurationError: It is not a list.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigurationError(f"{what}={value!r} is not a list. Write for example {example}.")


def check_choice(what: str, value: Choice, choices: Sequence[object]) -> Choice:
    """Checks that an argument is one of a few values.

    Args:
        what: The name of the argument.
        value: Its value.
        choices: The allowed values.

    Returns:
        The value.

    Raises:
        ConfigurationError: It is another one.
    """
    if value not in choices:
        raise ConfigurationError(f"{what}={value!r} must be one of {', '.join(map(repr, choices))}.")
    return value


def check_integer(what: str, value: object, at_least: int, example: str) -> int:
    """Checks that an argument is an integer.

    Args:
        what: The name of the argument.
        value: Its value. Numbers of NumPy and PyTorch are accepted, truth values are not.
        at_least: The smallest allowed value.
        example: What to write instead.

    Returns:
        The value as a Python number.

    Raises:
        ConfigurationError: It is not an integer, or too small.
    """
    number = plain(value)
    if not isinstance(number, int) or isinstance(number, bool) or number < at_least:
        raise ConfigurationError(
            f"{what}={number!r} must be an integer of at least {at_least}, for example {example}."
        )
    return number


def check_number(what: str, value: object, interval: Interval, example: str) -> float:
    """Checks that an argument is a number in an interval.

    Args:
        what: The name of the argument.
        value: Its value. Numbers of NumPy and PyTorch are accepted, truth values are not.
        interval: The interval, in words. ``"above 0"`` does not contain infinity.
        example: What to write instead.

    Returns:
        The value as a Python number.

    Raises:
        ConfigurationError: It is not a number in the interval.
    """
    number = plain(value)
    if not isinstance(number, (int, float)) or isinstance(number, bool) or not _CONTAINS[interval](number):
        raise ConfigurationError(f"{what}={number!r} must be a number {interval}, for example {example}.")
    return number

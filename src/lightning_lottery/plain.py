"""Python's own numbers in place of those of NumPy and PyTorch, which JSON does not know."""

from dataclasses import fields
from typing import Any

import numpy as np
from torch import Tensor


def plain(value: Any) -> Any:
    """Turns numbers and arrays of NumPy and PyTorch into Python's, also inside lists, tuples and mappings.

    Args:
        value: Anything.

    Returns:
        ``int``, ``float`` and ``bool``, lists of them for arrays; anything else as it is.
    """
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def make_plain(arguments: Any) -> None:
    """Turns the fields of a dataclass into Python's own numbers, in place; call it first in ``__post_init__``."""
    for entry in fields(arguments):
        object.__setattr__(arguments, entry.name, plain(getattr(arguments, entry.name)))

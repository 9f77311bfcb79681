"""Converts NumPy and PyTorch numbers to Python numbers, which JSON can hold."""

from dataclasses import fields
from typing import Any

import numpy as np
from torch import Tensor


def plain(value: Any) -> Any:
    """Converts NumPy and PyTorch numbers and arrays to Python values, also inside lists, tuples and dictionaries.

    Args:
        value: Any value.

    Returns:
        ``int``, ``float`` or ``bool``; lists of them for arrays. Anything else is returned unchanged.
    """
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    return value


def make_plain(arguments: Any) -> None:
    """Converts the fields of a dataclass with :func:`plain`, in place. Call it first in ``__post_init__``."""
    for entry in fields(arguments):
        object.__setattr__(arguments, entry.name, plain(getattr(arguments, entry.name)))

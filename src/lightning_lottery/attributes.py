"""Replaces attributes of objects for the duration of a fit."""

from collections.abc import Callable
from typing import Any

_NONE = object()


def replace_attribute(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Replaces an attribute of an object until the returned function is called.

    Args:
        owner: The object.
        name: The name of the attribute.
        value: The new value. A function should call the one it replaces.

    Returns:
        A function that restores the attribute. If somebody else has replaced ``value`` in the meantime, their
        replacement stays, since it may call ``value``.
    """
    before = vars(owner).get(name, _NONE)
    setattr(owner, name, value)

    def undo() -> None:
        if vars(owner).get(name, _NONE) is not value:
            return
        if before is _NONE:
            delattr(owner, name)
        else:
            setattr(owner, name, before)

    return undo

"""Attributes that stand in for others during a fit."""

from collections.abc import Callable
from typing import Any

_NONE = object()


def replace_attribute(owner: Any, name: str, value: Any) -> Callable[[], None]:
    """Puts a value in place of an attribute of an object, also of one that is set on the object itself.

    Args:
        owner: The object.
        name: The attribute.
        value: What stands in for it; a function should call the one that was there.

    Returns:
        What to call to bring back what was there. If somebody else has put something over ``value`` since, that
        stays, as it may call ``value``.
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

"""Converts nested dataclasses to plain values and back, so that ``torch.load(weights_only=True)`` accepts them."""

import functools
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from importlib.metadata import version
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lightning_lottery.errors import ConfigurationError

KEY = "key"  # in the metadata of a field, its key among plain values if that differs from its name
_State = TypeVar("_State", bound="State")
_hints: Callable[[Any], dict[str, Any]] = functools.cache(get_type_hints)


@dataclass(frozen=True)
class State:
    """Base class of everything that a checkpoint or a state file contains.

    Attributes:
        version: The version of this package that writes the state.
    """

    version: str = field(default=version("lightning-lottery"), kw_only=True)


def to_plain(state: Any) -> dict[str, Any]:
    """Converts a dataclass, with the dataclasses inside, to dictionaries. Tensors are not copied.

    Values that are annotated as ``Any`` stay as they are.
    """
    hints = _hints(type(state))
    return {
        _key(entry): _converted(hints[entry.name], getattr(state, entry.name), lambda _, inner: to_plain(inner))
        for entry in fields(state)
    }


def from_plain(kind: type[_State], values: Any, source: str, otherwise: str) -> _State:
    """Undoes :func:`to_plain`.

    Args:
        kind: The class of the state.
        values: The plain values. Earlier versions stored some parts as sequences, in the order of fields.
        source: What the values were read from, for the error message.
        otherwise: What to do without the other version, for the error message.

    Raises:
        ConfigurationError: Another version of this package has written other values.
    """
    try:
        made: _State = _object(kind, values)
    except (TypeError, ValueError, AttributeError) as error:
        known = values.get("version") if isinstance(values, dict) else None
        name = f"lightning-lottery {known}" if known else "another version of lightning-lottery"
        install = f" (pip install lightning-lottery=={known})" if known else ""
        raise ConfigurationError(
            f"{source} was written by {name}, which stores other values ({error}). Resume with that version"
            f"{install}; or {otherwise}."
        ) from error
    return made


def _converted(kind: Any, value: Any, convert: Callable[[Any, Any], Any]) -> Any:
    """Converts the dataclasses inside a value of an annotated type, given their classes and values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        inner = next(argument for argument in arguments if argument is not NoneType)
        return None if value is None else _converted(inner, value, convert)
    if is_dataclass(kind):
        return convert(kind, value)
    if origin is list:
        return [_converted(arguments[0], item, convert) for item in value]
    if origin is dict and arguments[1] is not Any:
        return {key: _converted(arguments[1], item, convert) for key, item in value.items()}
    return value


def _object(kind: Any, value: Any) -> Any:
    entries, hints = fields(kind), _hints(kind)
    if isinstance(value, (list, tuple)):
        value = {_key(entry): item for entry, item in zip(entries, value, strict=False)}
    elif not isinstance(value, dict):
        raise TypeError(f"{kind.__name__} is {value!r:.100}")
    known = {_key(entry): entry for entry in entries}
    missing = [key for key, entry in known.items() if key not in value and not _has_default(entry)]
    foreign = [key for key in value if key not in known]
    if missing or foreign:
        raise TypeError(f"{kind.__name__}: missing are {missing}, unknown are {foreign}")
    names = {known[key].name: item for key, item in value.items()}
    return kind(**{name: _converted(hints[name], item, _object) for name, item in names.items()})


def _key(entry: "Field[Any]") -> str:
    return str(entry.metadata.get(KEY, entry.name))


def _has_default(entry: "Field[Any]") -> bool:
    return entry.default is not MISSING or entry.default_factory is not MISSING

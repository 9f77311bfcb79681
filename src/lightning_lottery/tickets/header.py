"""The header of a ticket file: what its safetensors metadata say, as strings."""

import json
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import Coding
from lightning_lottery.plain import first_of
from lightning_lottery.tickets.tensors import KINDS, Kind

FORMAT = "lightning-lottery ticket"
VERSION = 2
READABLE = ("1", "2")
# Fields of the header that the provenance of a ticket cannot have.
_RESERVED = (
    *("format", "version", "round", "branch", "density", "shapes", "kinds", "following"),
    *("crc32", "header_crc32"),
)
_DIGITS = 9
_LARGEST = 2**62  # PyTorch counts entries in 63 bits

Shape = tuple[int, ...]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Header:
    """What a ticket file says about its tensors.

    Attributes:
        round: The number of prunings behind the masks.
        branch: ``"ticket"``, ``"search"``, or the name of the control; see :class:`RoundId`.
        shapes: The shape of each masked weight, by name.
        kinds: How unusual tensors are put together from their parts, by name.
        following: The names of the masks that density does not count.
        provenance: How the ticket was found.
        checksums: The CRC-32 of each tensor in the file; empty in version 1.
        version: The version of the format.
    """

    round: int
    branch: str
    shapes: dict[str, Shape]
    kinds: dict[str, Kind]
    following: list[str]
    provenance: dict[str, str]
    checksums: dict[str, int]
    version: int = VERSION

    def to_metadata(self, density: float) -> dict[str, str]:
        """The metadata of a file of the current version.

        Args:
            density: Kept / prunable, for other readers. It is not read again.

        Raises:
            TicketError: The branch is not a string, or the provenance has values that are not strings, or names of
                other fields.
        """
        if reserved := sorted(set(_RESERVED) & set(self.provenance)):
            raise TicketError(f"{', '.join(reserved)} cannot be names in the provenance of a ticket.")
        for name, value in {**self.provenance, "branch": self.branch}.items():
            if not (isinstance(name, str) and isinstance(value, str)):
                raise TicketError(
                    f"The provenance of a ticket must contain strings, but got {name!r}: {value!r:.100}."
                )
        metadata = {
            **self.provenance,
            "format": FORMAT,
            "version": str(VERSION),
            "round": str(self.round),
            "branch": self.branch,
            "density": repr(density),
            "shapes": json.dumps(self.shapes),
            **({"kinds": json.dumps(self.kinds)} if self.kinds else {}),
            **({"following": json.dumps(self.following)} if self.following else {}),
            "crc32": json.dumps(self.checksums),
        }
        return {**metadata, "header_crc32": _checksum(metadata)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Header":
        """Reads the metadata of a file.

        Args:
            metadata: Those of a ticket file of a version in ``READABLE``. They may come from anyone.

        Raises:
            ValueError: A field is missing or invalid; the message names it.
        """
        version = int(metadata["version"])
        if version > 1 and metadata.get("header_crc32") != _checksum(metadata):
            raise ValueError("the checksum of its header is wrong")
        shapes = _field(metadata, "shapes", "{}", _shape_of)
        following = _json(metadata, "following", "[]", list)
        if unknown := [name for name in following if not isinstance(name, str) or name not in shapes]:
            raise ValueError(f"its 'following' has no masks of {unknown!r:.200}")
        return cls(
            round=_count(metadata, "round"),
            branch=_text(metadata, "branch"),
            shapes=shapes,
            kinds=_field(metadata, "kinds", "{}", _kind_of),
            following=following,
            provenance=_provenance(metadata),
            checksums=_field(metadata, "crc32", "{}", _integer),
            version=version,
        )

    def check_tensors(self, keys: Collection[str]) -> dict[str, Coding]:
        """Checks that a file has the tensors that its header describes, and no others.

        Args:
            keys: The names of the tensors in the file.

        Returns:
            How the mask of each masked weight is coded, by name.

        Raises:
            ValueError: A tensor is missing or unexpected.
        """
        kinds_and_names = [key.partition(".")[::2] for key in keys]
        codings = {name: coding for coding, name in kinds_and_names if coding in self._codings()}
        weights = {name for kind, name in kinds_and_names if kind == "weight"}
        parts = {key for key in keys if key.startswith("part.")}
        unusual = {owner(key) for key in parts}
        described = {f"weight.{name}" for name in {*self.shapes, *weights}} | parts
        described |= {f"{coding}.{name}" for name, coding in codings.items()}
        for what, expected, found in (
            ("tensors", described, set(keys)),
            ("masks", set(self.shapes), set(codings)),
            ("unusual tensors", set(self.kinds), unusual),
            ("names", set(), unusual & weights),
            ("checksums", set(keys) if self.version > 1 else set(), set(self.checksums)),
        ):
            if expected != found:
                raise ValueError(f"its {what} are not those in its header: {_some(expected ^ found)}")
        return codings

    def _codings(self) -> tuple[Coding, ...]:
        return ("bits", "gaps") if self.version > 1 else ("mask",)


def owner(key: str) -> str | None:
    """The parameter or buffer that a tensor in the file is a value of; ``None`` for masks."""
    kind, _, name = key.partition(".")
    if kind == "part":
        return name.partition(".")[2]
    return name if kind == "weight" else None


def _provenance(metadata: Mapping[str, str]) -> dict[str, str]:
    """All other fields; safetensors does not keep their order."""
    names = sorted(set(metadata) - set(_RESERVED), key=lambda name: (name.endswith("_version"), name))
    return {name: metadata[name] for name in names}


def _checksum(metadata: Mapping[str, str]) -> str:
    """The CRC-32 of all other fields, in the order of their names."""
    others = sorted((name, value) for name, value in metadata.items() if name != "header_crc32")
    return str(zlib.crc32(json.dumps(others).encode()))


def _text(metadata: Mapping[str, str], name: str) -> str:
    if name not in metadata:
        raise ValueError(f"its header has no {name!r}")
    return metadata[name]


def _count(metadata: Mapping[str, str], name: str) -> int:
    text = _text(metadata, name)
    if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS):
        raise ValueError(f"its {name!r} is {text!r:.80}, but must be an integer of at least 0")
    return int(text)


def _json(metadata: Mapping[str, str], name: str, default: str, kind: type[Value]) -> Value:
    text = metadata.get(name, default)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its {name!r} is {text!r:.80}, which is not JSON") from error
    if not isinstance(value, kind):
        raise ValueError(f"its {name!r} is {text!r:.80}, but must be a {kind.__name__}")
    return value


def _field(
    metadata: Mapping[str, str], name: str, default: str, convert: Callable[[Any], Value]
) -> dict[str, Value]:
    values = {}
    for key, value in _json(metadata, name, default, dict).items():
        try:
            values[key] = convert(value)
        except ValueError as error:
            raise ValueError(f"its {name!r} of {key!r:.200} is {value!r:.80}, {error}") from None
    return values


def _shape_of(value: Any) -> Shape:
    if not isinstance(value, list) or len(value) > 32:
        raise ValueError("but must be a list of at most 32 sizes")
    sizes = tuple(map(_integer, value))
    if prod(size or 1 for size in sizes) >= _LARGEST:
        raise ValueError("which is too large")
    return sizes


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _LARGEST:
        raise ValueError("but must be an integer of at least 0")
    return value


def _kind_of(value: Any) -> Kind:
    if not isinstance(value, dict) or value.get("layout") not in KINDS:
        raise ValueError(f"but must describe a tensor of {', '.join(KINDS)}")
    if "shape" in value:
        _shape_of(value["shape"])
    if (inner := value.get("values")) is not None:
        _kind_of(inner)
    return value


def _some(names: Collection[object]) -> str:
    return first_of(sorted(map(repr, names)), most=5)

"""An open ticket file: what is in it, checked as it is read."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import CodedMask, Coding
from lightning_lottery.plain import first_line
from lightning_lottery.tickets.header import FORMAT, READABLE, Header, owner
from lightning_lottery.tickets.round_id import RoundId
from lightning_lottery.tickets.tensors import bytes_of, put_together

INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# What safetensors, NumPy and PyTorch raise for content that cannot be.
FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, SafetensorError)
_ATTEMPTS = 10
_FROM_CHECKPOINT = (
    "To make a ticket of a checkpoint, write Ticket.from_state_dict(path), or lightning-lottery ticket convert."
)


@dataclass(frozen=True)
class Layout:
    """Where in a ticket file everything is.

    Attributes:
        header: The description of its tensors.
        codings: How the mask of each masked weight is coded, by name.
        keys: The names of the tensors in the file that each weight or buffer consists of, by its name.
    """

    header: Header
    codings: dict[str, Coding]
    keys: dict[str, list[str]]

    @classmethod
    def of(cls, metadata: Mapping[str, str], tensors: Sequence[str]) -> "Layout":
        """Reads the metadata of a file of a version that can be read, and checks them against its tensors.

        Raises:
            ValueError: The metadata are invalid, or do not describe the tensors.
        """
        header = Header.from_metadata(metadata)
        codings = header.check_tensors(tensors)
        keys: dict[str, list[str]] = {}
        for key in tensors:
            if (name := owner(key)) is not None:
                keys.setdefault(name, []).append(key)
        return cls(header, codings, keys)


@dataclass(frozen=True)
class OpenTicket:
    """An open ticket file, of any version.

    Attributes:
        file: The open safetensors file. It has checked that its tensors fill it exactly.
        layout: Where in it everything is.
    """

    file: Any
    layout: Layout

    def tensor(self, key: str) -> Tensor:
        """One tensor, mapped from the file without a copy.

        Raises:
            ValueError: Its checksum is wrong.
        """
        tensor: Tensor = self.file.get_tensor(key)
        header = self.layout.header
        if header.version > 1 and crc32(bytes_of(tensor)) != header.checksums[key]:
            raise ValueError(f"the checksum of {key!r} is wrong")
        return tensor

    def mask(self, name: str) -> CodedMask:
        """A mask, not expanded yet.

        Raises:
            ValueError: It does not fit the shape in the header, or the number of values.
        """
        with _naming(name):
            coding, shape = self.layout.codings[name], self.layout.header.shapes[name]
            kept = self.file.get_slice(f"weight.{name}").get_shape()
            return CodedMask.decode(coding, self.tensor(f"{coding}.{name}"), shape, *kept)

    def values(self, name: str) -> Tensor:
        """The values of the survivors of a masked weight, mapped from the file without a copy.

        Raises:
            ValueError: They have more than one dimension, a wrong checksum, or a type that cannot be masked.
        """
        with _naming(name):
            values = self.tensor(f"weight.{name}")
            if values.dim() != 1:
                raise ValueError(f"its values have shape {tuple(values.shape)} instead of one dimension")
            values.new_empty(1).masked_fill(torch.ones(1, dtype=torch.bool), 0)  # not implemented for some types
            return values

    def unmasked(self, name: str) -> Tensor:
        """A weight or buffer without a mask, mapped from the file without a copy.

        Raises:
            ValueError: Its parts do not fit together, or have wrong checksums.
        """
        with _naming(name):
            if name not in self.layout.header.kinds:
                return self.tensor(f"weight.{name}")
            parts = {key.split(".", 2)[1]: self.tensor(key) for key in self.layout.keys[name]}
            return put_together(parts, self.layout.header.kinds[name])

    def weight(self, name: str) -> Tensor:
        """A weight or buffer, masked or not. It shares no memory with the file."""
        if name not in self.layout.header.shapes:
            return self.unmasked(name).clone()
        return expanded(self.values(name), self.mask(name))[1]

    def memory(self) -> int:
        """Bytes of all masked weights and their masks in memory, as far as the header says."""
        sizes = {name: prod(shape) for name, shape in self.layout.header.shapes.items()}
        return sum(n * (1 + self.file.get_tensor(f"weight.{name}").element_size()) for name, n in sizes.items())


def check_is_file(path: Path, what: str) -> None:
    """Checks that a path leads to a file with content.

    Args:
        path: The path.
        what: What the file should be, for the error message.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: The path leads to a folder, or the file is empty or cannot be read.
    """
    try:
        if path.is_dir():
            raise TicketError(f"{path} is a folder, not a {what}. Write the path of a file{_example_in(path)}.")
        if not path.is_file():
            raise FileNotFoundError(f"The {what} {path} does not exist.")
        if path.stat().st_size == 0:
            raise TicketError(f"{path} is not a {what}, or it is damaged: it is empty. Save it again.")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise
    except OSError as error:
        raise TicketError(f"{path} cannot be read: {error.strerror or error}.") from error


def _example_in(folder: Path) -> str:
    """A file to suggest instead of a folder: that of a model hub, or else the smallest ticket of a run."""
    found = [*folder.glob("ticket.safetensors"), *sorted(folder.glob("*.safetensors"))]
    found += sorted((*folder.glob("tickets/*.safetensors"), *folder.glob("*/tickets/*.safetensors")), reverse=True)
    tickets = [path for path in found if (entry := RoundId.parse(path.stem)) is None or entry.is_ticket]
    return f", for example {tickets[0]}" if tickets else ""


def is_ticket_file(path: Path) -> bool:
    """Whether a file says that it is a ticket, of any version."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError, ValueError):
        return False


@contextmanager
def open_ticket(path: Path, layout: Layout | None = None) -> Iterator[OpenTicket]:
    """Opens a ticket file.

    Args:
        path: The file.
        layout: Its layout, if it is known already: reading it takes longer than reading a small tensor.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: The file is not a ticket, or it, or what is read from it, is damaged.
    """
    check_is_file(path, "ticket file")
    metadata: dict[str, str] = {}
    try:
        with _opened(path) as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            yield OpenTicket(file, layout or Layout.of(metadata, list(file.keys())))
    except TicketError:
        raise
    except (*FAULTS, MemoryError, OSError) as error:
        why = first_line(error)
        if isinstance(error, MemoryError) or "memory" in why:  # PyTorch raises RuntimeErrors
            raise TicketError(f"{path} does not fit into memory: {why}.") from error
        if metadata.get("format") == FORMAT:
            raise TicketError(f"{path} is a damaged ticket file: {why}. Copy or save it again.") from error
        raise TicketError(f"{path} is not a ticket file, or it is damaged: {why}. {_FROM_CHECKPOINT}") from error


def _opened(path: Path) -> Any:
    """Opens a safetensors file.

    Safetensors opens it twice, for its header and for its tensors. If the file is replaced in between, this opens
    the new one.
    """
    for _ in range(_ATTEMPTS):
        before = path.stat()
        try:
            return safe_open(path, framework="pt")
        except (SafetensorError, OSError, RuntimeError):
            after = path.stat()
            if (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns):
                raise
    return safe_open(path, framework="pt")


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise TicketError(
            f"{path} is not a ticket file: it has format {metadata.get('format', 'none')!r:.80} instead of "
            f"{FORMAT!r}. {_FROM_CHECKPOINT}"
        )
    if (version := metadata.get("version")) not in READABLE:
        raise TicketError(
            f"{path} is a ticket file of version {version!r:.80}, but this version of lightning-lottery reads "
            f"only {', '.join(READABLE)}. Write pip install --upgrade lightning-lottery."
        )


def expanded(values: Tensor, mask: CodedMask) -> tuple[Tensor, Tensor]:
    """A mask as a boolean tensor, and its weight, which is zero where it is pruned."""
    integers = values.view(INTEGERS[values.element_size()]).numpy()
    flat, weight = mask.expand(integers)
    return torch.from_numpy(flat).reshape(mask.shape), torch.from_numpy(weight).view(values.dtype).reshape(
        mask.shape
    )


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Names the weight or buffer in the error of a fault."""
    try:
        yield
    except FAULTS as error:
        what = f"{error!r}" if isinstance(error, (LookupError, AttributeError)) else first_line(error)
        raise ValueError(f"{name!r}: {what}") from error

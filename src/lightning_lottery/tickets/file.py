"""The ticket file: safetensors with the surviving values, and the masks as compressed bits."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.files import write_atomically
from lightning_lottery.masks import CodedMask, Coding
from lightning_lottery.tickets.header import FORMAT, READABLE, Header, owner
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.tensors import bytes_of, put_together, take_apart

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# What safetensors, NumPy and PyTorch raise for content that cannot be.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, SafetensorError)
# What a file may take in memory, so that a hostile one cannot ask for more than the machine has.
_SMALL, _EXPANSION = 2**28, 2**10
_FROM_CHECKPOINT = (
    "To make a ticket of a checkpoint, write Ticket.from_state_dict(path), or lightning-lottery ticket convert."
)


def write_file(path: Path, ticket: MaskedWeights) -> None:
    """Writes a ticket file under a temporary name and renames it.

    Args:
        path: The file.
        ticket: The ticket. It is not sharded.

    Raises:
        FolderError: The file cannot be written.
        TicketError: The ticket has a tensor or a description that a file cannot store.
    """
    tensors: dict[str, Tensor] = {}
    kinds = {}
    for name, weight in ticket.weights.items():
        if (mask := ticket.masks.get(name)) is not None:
            coded = CodedMask.of(mask)
            coding, stored = coded.encode()
            tensors |= {f"weight.{name}": _survivors(name, weight, coded), f"{coding}.{name}": stored}
            continue
        try:
            parts, kind = take_apart(weight)
        except TypeError as error:
            raise TicketError(
                f"{name!r} is {error}, which a ticket file cannot store. Register it with persistent=False."
            ) from error
        if kind is None:
            tensors[f"weight.{name}"] = parts[""]
        else:
            tensors |= {f"part.{part}.{name}": tensor for part, tensor in parts.items()}
            kinds[name] = kind
    header = Header(
        round=ticket.round,
        branch=ticket.branch,
        shapes={name: tuple(mask.shape) for name, mask in ticket.masks.items()},
        kinds=kinds,
        following=list(ticket.following),
        provenance=ticket.provenance,
        checksums={key: crc32(bytes_of(tensor)) for key, tensor in tensors.items()},
    )
    write_atomically(path, save(_unshared(tensors), header.to_metadata(ticket.density)))


def read_file(path: Path, max_bytes: float | None = None) -> MaskedWeights:
    """Reads a ticket file of any version and checks all of it, before memory is allocated for any weight.

    Args:
        path: The file.
        max_bytes: The largest size of masks and masked weights in memory. By default 256 MiB, or 1024 times the
            length of the file if that is more: enough for any network with a density of at least 0.1 %.

    Returns:
        The content, on the CPU. It shares no memory with the file.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: The file is damaged or not a ticket, or takes more than ``max_bytes``.
    """
    with open_ticket(path) as ticket:
        header, size = ticket.layout.header, path.stat().st_size
        allowed = max(_SMALL, _EXPANSION * size) if max_bytes is None else max_bytes
        needed = ticket.memory()
        if needed > allowed:
            raise TicketError(
                f"{path} has {size:,} bytes, but says that it takes {needed:,} bytes of memory, more than is "
                f"allowed. If you trust it, write Ticket.load(path, max_bytes={needed})."
            )
        coded = {name: ticket.mask(name) for name in header.shapes}
        masks, weights = {}, {}
        for name, mask in coded.items():
            masks[name], weights[name] = mask.mask(), ticket.weight(name, mask)
        for name in ticket.layout.keys:
            if name not in masks:
                weights[name] = ticket.unmasked(name).clone()
        return MaskedWeights(
            masks, weights, header.round, header.branch, header.provenance, header.following, is_masked=True
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
        """One tensor of the file, in the file's memory.

        Raises:
            ValueError: It does not have its checksum.
        """
        tensor: Tensor = self.file.get_tensor(key)
        if self.layout.header.version > 1 and crc32(bytes_of(tensor)) != self.layout.header.checksums[key]:
            raise ValueError(f"{key!r} does not have its checksum")
        return tensor

    def mask(self, name: str) -> CodedMask:
        """A mask, not expanded yet.

        Raises:
            ValueError: It does not fit the shape in the header, or the number of values.
        """
        coding = self.layout.codings[name]
        values = self.file.get_slice(f"weight.{name}").get_shape()
        if len(values) != 1:
            raise ValueError(f"{name!r} has values of shape {tuple(values)} instead of one dimension")
        try:
            stored = self.tensor(f"{coding}.{name}")
            return CodedMask.decode(coding, stored, self.layout.header.shapes[name], values[0])
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error

    def unmasked(self, name: str) -> Tensor:
        """A weight or buffer without a mask."""
        if name not in self.layout.header.kinds:
            return self.tensor(f"weight.{name}")
        parts = {key.split(".", 2)[1]: self.tensor(key) for key in self.layout.keys[name]}
        return put_together(parts, self.layout.header.kinds[name])

    def weight(self, name: str, mask: CodedMask) -> Tensor:
        """A masked weight, with zeros where it is pruned."""
        survivors = self.tensor(f"weight.{name}")
        integers = survivors.view(_INTEGERS[survivors.element_size()]).numpy()
        return torch.from_numpy(mask.scatter(integers)).view(survivors.dtype).reshape(mask.shape)

    def memory(self) -> int:
        """Bytes of all masked weights and their masks in memory, as far as the header says."""
        sizes = {name: prod(shape) for name, shape in self.layout.header.shapes.items()}
        return sum(n * (1 + self.file.get_tensor(f"weight.{name}").element_size()) for name, n in sizes.items())


class StoredWeights(Mapping[str, Tensor]):
    """The starting values in a ticket file. Every access reads one tensor, to the CPU.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: The file is damaged or not a ticket.
    """

    def __init__(self, path: Path) -> None:
        with open_ticket(path) as ticket:
            self._layout = ticket.layout
        self._path = path

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._layout.keys:
            raise KeyError(name)
        with open_ticket(self._path, self._layout) as ticket:
            is_masked = name in self._layout.codings
            return ticket.weight(name, ticket.mask(name)) if is_masked else ticket.unmasked(name)

    def __contains__(self, name: object) -> bool:
        return name in self._layout.keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.keys)

    def __len__(self) -> int:
        return len(self._layout.keys)


def check_is_file(path: Path, what: str) -> None:
    """Checks that a path leads to a file with content.

    Args:
        path: The path.
        what: What the file should be, for the error message.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: The path leads to a folder, or the file is empty.
    """
    if path.is_dir():
        inside = sorted(path.glob("*.safetensors")) + sorted(path.glob("*/*.safetensors"))
        example = f", for example {inside[-1]}" if inside else ""
        raise TicketError(f"{path} is a folder, not a {what}. Write the path of a file{example}.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no {what} {path}.")
    if path.stat().st_size == 0:
        raise TicketError(f"{path} is not a {what}, or it is damaged: it is empty. Save it again.")


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
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_format(path, metadata)
            yield OpenTicket(file, layout or Layout.of(metadata, list(file.keys())))
    except TicketError:
        raise
    except MemoryError as error:
        raise TicketError(f"{path} takes more memory than there is: {error}") from error
    except (*_FAULTS, OSError) as error:
        if metadata.get("format") == FORMAT:
            raise TicketError(f"{path} is a damaged ticket file: {error}. Copy or save it again.") from error
        raise TicketError(f"{path} is not a ticket file, or it is damaged: {error}. {_FROM_CHECKPOINT}") from error


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


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, of which no two share memory, since safetensors refuses that."""
    seen: set[int] = set()
    made = {}
    for key, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        made[key] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return made


def _survivors(name: str, weight: Tensor, mask: CodedMask) -> Tensor:
    """The surviving values in order of position, on the CPU."""
    if (kind := _INTEGERS.get(weight.element_size())) is None:
        raise TicketError(f"{name!r} is a masked tensor of {weight.dtype}, which a ticket file cannot store.")
    integers = weight.detach().cpu().contiguous().view(-1).view(kind)  # NumPy has no bfloat16
    return torch.from_numpy(mask.gather(integers.numpy())).view(weight.dtype)

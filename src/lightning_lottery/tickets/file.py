"""The ticket file: safetensors with the surviving values, and the masks as compressed bits."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from zlib import crc32

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.files import written_atomically
from lightning_lottery.masks import CodedMask
from lightning_lottery.plain import check_number, first_line
from lightning_lottery.tickets.header import Header
from lightning_lottery.tickets.masked_weights import MaskedWeights
from lightning_lottery.tickets.open_file import FAULTS, INTEGERS, Layout, expanded, open_ticket
from lightning_lottery.tickets.tensors import Kind, bytes_of, take_apart

# What a file may take in memory by default: what is small, or a multiple of its length.
_SMALL, _EXPANSION = 2**28, 2**11


def write_file(path: Path, ticket: MaskedWeights) -> None:
    """Writes a ticket file under a temporary name and renames it.

    Args:
        path: The file.
        ticket: The ticket. It is not sharded.

    Raises:
        FolderError: The file cannot be written.
        TicketError: The path is a folder, or the ticket has a tensor or a description that a file cannot store.
    """
    if path.is_dir():
        raise TicketError(f"{path} is a folder. Write the path of a file, such as {path / 'ticket.safetensors'}.")
    tensors: dict[str, Tensor] = {}
    kinds: dict[str, Kind] = {}
    for name, weight in ticket.weights.items():
        stored, kind = _coded(name, weight, ticket.masks.get(name))
        tensors |= stored
        if kind is not None:
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
    metadata = header.to_metadata(ticket.density)
    try:
        Layout.of(metadata, list(tensors))  # as when it is read
    except ValueError as error:
        raise TicketError(f"The ticket cannot be written to {path}: {error}.") from error
    with written_atomically(path) as temporary:
        try:
            save_file(_unshared(tensors), temporary, metadata)
        except SafetensorError as error:  # such as a full disk
            raise OSError(first_line(error)) from error
        except FAULTS as error:
            raise TicketError(f"The ticket cannot be written to {path}: {error!r}.") from error


def _coded(name: str, weight: Tensor, mask: Tensor | None) -> tuple[dict[str, Tensor], Kind | None]:
    """The tensors of the file that a weight or buffer consists of, and how to put unusual ones together."""
    try:
        if mask is not None:
            coded = CodedMask.of(mask)
            coding, stored = coded.encode()
            return {f"weight.{name}": _survivors(weight, coded), f"{coding}.{name}": stored}, None
        parts, kind = take_apart(weight)
    except FAULTS as error:
        what = f"a tensor of {weight.dtype} on {weight.device}"
        raise TicketError(
            f"{name!r} is {what}, which a ticket file cannot store ({first_line(error)}). If it is a buffer, "
            "register it with persistent=False."
        ) from error
    if kind is None:
        return {f"weight.{name}": parts[""]}, None
    return {f"part.{part}.{name}": tensor for part, tensor in parts.items()}, kind


def read_file(path: Path, max_bytes: float | None = None) -> MaskedWeights:
    """Reads a ticket file of any version and checks all of it, before memory is allocated for any weight.

    Args:
        path: The file.
        max_bytes: The largest size of masks and masked weights in memory. By default 256 MiB, or 2048 times the
            length of the file if that is more: enough for any network with a density of at least 0.1 %.

    Returns:
        The content, on the CPU. It shares no memory with the file.

    Raises:
        ConfigurationError: ``max_bytes`` is not a number of at least 0.
        FileNotFoundError: The file does not exist.
        TicketError: The file is damaged or not a ticket, or takes more than ``max_bytes``.
    """
    if max_bytes is not None:
        check_number("max_bytes", max_bytes, "of at least 0", "max_bytes=2**30")
    with open_ticket(path) as ticket:
        header, size, needed = ticket.layout.header, path.stat().st_size, ticket.memory()
        if needed > (max(_SMALL, _EXPANSION * size) if max_bytes is None else max_bytes):
            raise TicketError(
                f"{path} has {size:,} bytes, but says that it takes {needed:,} bytes of memory, more than is "
                f"allowed. If you trust it, write Ticket.load(path, max_bytes={needed})."
            )
        values = {name: ticket.values(name) for name in ticket.layout.keys if name in header.shapes}
        others = {name: ticket.unmasked(name) for name in ticket.layout.keys if name not in header.shapes}
        coded = {name: ticket.mask(name) for name in header.shapes}
        masks, weights = {}, {name: other.clone() for name, other in others.items()}
        for name in header.shapes:
            masks[name], weights[name] = expanded(values.pop(name), coded.pop(name))
    return MaskedWeights.masked(
        masks=masks,
        weights=weights,
        round=header.round,
        branch=header.branch,
        provenance=header.provenance,
        following=header.following,
    )


def read_mask(path: Path, name: str) -> Tensor | None:
    """Reads one mask of a ticket file, without reading the others.

    Args:
        path: The file.
        name: The name of the parameter.

    Returns:
        A boolean tensor of its shape; ``None`` if the parameter has no mask.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: The file is damaged or not a ticket.
    """
    with open_ticket(path) as ticket:
        if name not in ticket.layout.header.shapes:
            return None
        return expanded(ticket.values(name), ticket.mask(name))[0]


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
            return ticket.weight(name)

    def __contains__(self, name: object) -> bool:
        return name in self._layout.keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.keys)

    def __len__(self) -> int:
        return len(self._layout.keys)


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, of which no two share memory, since safetensors refuses that."""
    seen: set[int] = set()
    made = {}
    for key, tensor in tensors.items():
        address = tensor.untyped_storage().data_ptr()
        made[key] = tensor.clone() if address in seen else tensor
        seen.add(address)
    return made


def _survivors(weight: Tensor, mask: CodedMask) -> Tensor:
    """The surviving values in order of position, on the CPU."""
    plain = weight.detach().cpu().resolve_conj().resolve_neg().contiguous().view(-1)
    integers = plain.view(INTEGERS[plain.element_size()])  # NumPy has no bfloat16
    return torch.from_numpy(mask.gather(integers.numpy())).view(plain.dtype)

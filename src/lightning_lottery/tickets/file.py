"""The ticket file: safetensors with the surviving values and the masks packed to bits."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.files import write_atomically
from lightning_lottery.masks import density, pack, unpack
from lightning_lottery.tickets.tensors import put_together, take_apart

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_FORMAT = "lightning-lottery ticket"
_VERSION = "1"


@dataclass(frozen=True)
class TicketFile:
    """The content of a ticket file.

    Attributes:
        masks: A boolean tensor for each prunable parameter, by name.
        weights: The starting values of all parameters and persistent buffers, by name.
        round: The number of prunings behind the masks.
        branch: ``"ticket"``, or the name of the control.
        provenance: How the ticket was found, as strings.
        following: The names of the masks that density does not count.
    """

    masks: dict[str, Tensor]
    weights: dict[str, Tensor]
    round: int
    branch: str
    provenance: dict[str, str]
    following: list[str]

    def write(self, path: Path) -> None:
        """Writes the file under a temporary name and renames it.

        Args:
            path: The file.

        Raises:
            TicketError: A buffer is quantised or nested and cannot be written.
        """
        tensors, shapes, kinds = {}, {}, {}
        for name, weight in self.weights.items():
            if (mask := self.masks.get(name)) is not None:
                tensors[f"weight.{name}"] = _survivors(weight, mask)
                tensors[f"mask.{name}"] = pack(mask)
                shapes[name] = list(mask.shape)
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
        metadata = {
            **self.provenance,
            "format": _FORMAT,
            "version": _VERSION,
            "round": str(self.round),
            "branch": self.branch,
            "density": repr(density({n: mask for n, mask in self.masks.items() if n not in self.following})),
            "shapes": json.dumps(shapes),
            **({"kinds": json.dumps(kinds)} if kinds else {}),
            **({"following": json.dumps(self.following)} if self.following else {}),
        }
        write_atomically(path, save(tensors, metadata))

    @classmethod
    def read(cls, path: Path) -> "TicketFile":
        """Reads a file and checks all of it.

        Returns:
            The content, on the CPU.

        Raises:
            FileNotFoundError: The file does not exist.
            TicketError: The file is damaged or not a ticket.
        """
        with _opened(path) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        _check_format(path, metadata)
        return cls._from_tensors(path, metadata, tensors)

    @classmethod
    def _from_tensors(cls, path: Path, metadata: dict[str, str], tensors: Mapping[str, Tensor]) -> "TicketFile":
        name = "its metadata"
        try:
            shapes: dict[str, list[int]] = json.loads(metadata.pop("shapes"))
            number = int(metadata.pop("round"))
            branch = metadata.pop("branch")
            masks, weights = {}, {}
            for name, shape in shapes.items():
                mask = unpack(tensors[f"mask.{name}"], shape)
                survivors = tensors[f"weight.{name}"]
                if survivors.shape != (int(mask.count_nonzero()),):
                    raise ValueError(f"{tuple(survivors.shape)} values for {int(mask.count_nonzero())} survivors")
                masks[name] = mask
                weights[name] = _scattered(survivors, mask)
            for name, kind in json.loads(metadata.pop("kinds", "{}")).items():
                keys = {key: key.split(".", 2) for key in tensors if key.startswith("part.")}
                parts = {part: tensors[key] for key, (_, part, owner) in keys.items() if owner == name}
                weights[name] = put_together(parts, kind)
            name = "following"
            following = [str(follower) for follower in json.loads(metadata.pop("following", "[]"))]
            if unknown := set(following) - set(masks):
                raise ValueError(f"no masks of {sorted(unknown)}")
            for key, tensor in tensors.items():
                name = key.removeprefix("weight.")
                if key.startswith("weight.") and name not in weights:
                    weights[name] = tensor
        except (KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
            raise TicketError(f"{path} is damaged at {name!r}: {error!r}") from error
        for key in ("format", "version", "density"):
            metadata.pop(key, None)
        return cls(masks, weights, number, branch, metadata, following)


class StoredWeights(Mapping[str, Tensor]):
    """The starting values in a ticket file. Every access reads one tensor, to the CPU.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        with _opened(path) as file:
            metadata, self._keys = file.metadata() or {}, list(file.keys())
        _check_format(path, metadata)
        self._path = path
        self._shapes = json.loads(metadata.get("shapes", "{}"))
        self._kinds = json.loads(metadata.get("kinds", "{}"))
        self._names = dict.fromkeys(owner for key in self._keys if (owner := _owner(key)) is not None)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        try:
            with _opened(self._path) as file:
                return self._read(file, name)
        except (KeyError, RuntimeError) as error:
            raise TicketError(f"{self._path} is damaged at {name!r}: {error!r}") from error

    def _read(self, file: Any, name: str) -> Tensor:
        if name in self._kinds:
            parts = {key.split(".", 2)[1]: key for key in self._keys if _owner(key) == name}
            return put_together({part: file.get_tensor(key) for part, key in parts.items()}, self._kinds[name])
        weight: Tensor = file.get_tensor(f"weight.{name}")
        if name not in self._shapes:
            return weight
        return _scattered(weight, unpack(file.get_tensor(f"mask.{name}"), self._shapes[name]))

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _owner(key: str) -> str | None:
    """The parameter or buffer that a tensor in the file is a value of; ``None`` for masks."""
    if key.startswith("part."):
        return key.split(".", 2)[2]
    return key.removeprefix("weight.") if key.startswith("weight.") else None


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
        raise TicketError(
            f"{path} has format {metadata.get('format', 'none')!r}, version "
            f"{metadata.get('version', 'none')!r}. Only {_FORMAT!r}, version {_VERSION!r}, is supported. To make "
            "a ticket of another file, such as a checkpoint, write Ticket.from_state_dict(path)."
        )


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
            return (file.metadata() or {}).get("format") == _FORMAT
    except (SafetensorError, OSError, ValueError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: It is damaged, or not a safetensors file.
    """
    check_is_file(path, "ticket file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError) as error:
        raise TicketError(
            f"{path} is not a ticket file, or it is damaged: {error}. To make a ticket of a checkpoint, write "
            "Ticket.from_state_dict(path)."
        ) from error


def _scattered(survivors: Tensor, mask: Tensor) -> Tensor:
    """A weight with its surviving values in order of position, and zeros elsewhere."""
    weight = torch.zeros(mask.shape, dtype=survivors.dtype)
    weight[mask] = survivors
    return weight


def _survivors(weight: Tensor, mask: Tensor) -> Tensor:
    """The surviving values in order of position, on the CPU."""
    # NumPy has no bfloat16, but it compresses integers five times faster than PyTorch indexes by booleans.
    integers = weight.detach().cpu().contiguous().view(-1).view(_INTEGERS[weight.element_size()])
    chosen = np.compress(mask.cpu().contiguous().view(-1).numpy(), integers.numpy())
    return torch.from_numpy(chosen).view(weight.dtype)

"""State dicts and checkpoints: read without executing code, and as plain tensors by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_lottery.errors import TicketError
from lightning_lottery.files import local_path
from lightning_lottery.masks import sharding
from lightning_lottery.tickets.open_file import check_is_file, is_ticket_file

Weights = dict[str, Tensor]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a file of PyTorch, Lightning or safetensors to the CPU, without executing code in it.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: It cannot be read in this way.
    """
    file = local_path(path, "'checkpoint.ckpt'")
    check_is_file(file, "checkpoint")
    if is_ticket_file(file):
        raise TicketError(f"{file} is a ticket file. Write Ticket.load(path).")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        # Damaged files cause exceptions of many kinds.
        raise TicketError(
            f"{file} cannot be read as a checkpoint: it is damaged, or contains more than tensors and plain "
            f"values ({type(error).__name__}). Code in it is never executed (weights_only=True). If you trust the "
            "file, load it yourself and pass its state dict."
        ) from error
    if not isinstance(content, dict):
        raise TicketError(f"{file} contains {type(content).__name__}. Save the state_dict of the network instead.")
    return content


def tensors_in(state_dict: Mapping[str, Any]) -> Weights:
    """Copies the tensors of a state dict.

    Args:
        state_dict: A state dict, or a dictionary with one, such as a checkpoint of Lightning.

    Returns:
        The tensors by name, on the CPU. A tied one appears once, under its first name.

    Raises:
        TicketError: It contains none, or several state dicts.
    """
    tensors = _named(state_dict)
    if not tensors:
        raise TicketError("A state dict of tensors by name is needed, but this one contains no tensors.")
    first = set(_first_names(tensors).values())
    return {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items() if name in first}


def first_names_in(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """The first name of each tensor in a state dict by all its names, of which tied ones have several."""
    return _first_names(_named(state_dict))


def entries_of(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The entries of a state dict, or of the only one in a dictionary.

    Raises:
        TicketError: It is not a dictionary with tensors, or has several state dicts.
    """
    if not isinstance(content, Mapping):
        raise TicketError(f"Pass a state dict of tensors by name, or a path, but got {content!r:.200}.")
    if isinstance(inner := content.get("state_dict"), Mapping):
        return inner
    if any(isinstance(entry, Tensor) for entry in content.values()):
        return content
    nested = [
        key
        for key, entry in content.items()
        if isinstance(entry, Mapping) and any(isinstance(part, Tensor) for part in entry.values())
    ]
    if len(nested) != 1:
        keys = ", ".join(map(repr, nested or content)) or "nothing"
        what = "several state dicts" if nested else "no tensors"
        raise TicketError(
            f"A state dict of tensors by name is needed, but this dictionary contains {what}: {keys:.300}."
        )
    return entries_of(content[nested[0]])


def _named(state_dict: Mapping[str, Any]) -> Weights:
    entries = entries_of(state_dict).items()
    return {str(name): sharding.whole(entry.detach()) for name, entry in entries if isinstance(entry, Tensor)}


def _first_names(tensors: Weights) -> dict[str, str]:
    """Tied tensors share memory and the last part of their name with an earlier one."""
    first: dict[object, str] = {}
    names = {}
    for name, tensor in tensors.items():
        is_plain = tensor.layout == torch.strided and not tensor.is_nested and tensor.numel() > 0
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), name.rpartition(".")[2]) if is_plain else name
        names[name] = first.setdefault(key, name)
    return names

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
        state_dict: A state dict, or a checkpoint of Lightning with one.

    Returns:
        The tensors by name, on the CPU. A tied one appears once, under its first name.

    Raises:
        TicketError: There are none.
    """
    inner = state_dict.get("state_dict", state_dict) if isinstance(state_dict, Mapping) else None
    named = inner.items() if isinstance(inner, Mapping) else ()
    tensors = {str(name): sharding.whole(tensor.detach()) for name, tensor in named if isinstance(tensor, Tensor)}
    if not tensors:
        raise TicketError(f"Pass a state dict of tensors by name, or a path, but got {state_dict!r:.200}.")
    return {name: tensor.to("cpu", copy=True) for name, tensor in _without_tied(tensors).items()}


def _without_tied(tensors: Weights) -> Weights:
    """The tensors without tied ones, which share memory and the last part of their name with an earlier one."""
    first: dict[object, str] = {}
    for name, tensor in tensors.items():
        is_plain = tensor.layout == torch.strided and not tensor.is_nested and tensor.numel() > 0
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), name.rpartition(".")[2]) if is_plain else name
        first.setdefault(key, name)
    return {name: tensors[name] for name in first.values()}

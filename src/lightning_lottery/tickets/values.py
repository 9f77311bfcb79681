"""Other values for the masks of a ticket, such as those of the trained network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.tickets.network import starting_values
from lightning_lottery.tickets.state_dict import Weights, read_checkpoint, tensors_in


def values_for(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: nn.Module | Mapping[str, Any] | str | Path
) -> Weights:
    """Copies the values of a network or checkpoint that fit the weights of a ticket.

    Args:
        masks: The masks of the ticket by name.
        weights: All its weights by name.
        source: A network, a state dict, a checkpoint, or the path of a file with one of the latter.

    Returns:
        The values, on the CPU, in the order of ``weights``.

    Raises:
        FileNotFoundError: The file does not exist.
        TicketError: Names or shapes differ, or pruned weights are not zero; the message names all of them.
    """
    if isinstance(source, nn.Module):
        values = starting_values(source)
    else:
        values = tensors_in(read_checkpoint(source) if isinstance(source, (str, Path)) else source)
    missing = [name for name in weights if name not in values]
    unknown = [name for name in values if name not in weights]
    shapes = [
        f"{name!r} has shape {tuple(values[name].shape)} instead of {tuple(weight.shape)}"
        for name, weight in weights.items()
        if name in values and values[name].shape != weight.shape
    ]
    faults = [
        *([f"only the ticket has {', '.join(map(repr, missing))}"] if missing else []),
        *([f"only they have {', '.join(map(repr, unknown))}"] if unknown else []),
        *shapes,
    ]
    if faults:
        raise TicketError(
            f"The values do not fit the ticket: {'; '.join(faults)}. If only names differ, load the checkpoint "
            "into the network and pass that."
        )
    if alive := [name for name, mask in masks.items() if bool(values[name].masked_select(~mask.cpu()).any())]:
        raise TicketError(
            f"Pruned weights are not zero in {', '.join(map(repr, alive))}, so it was trained without its "
            "mask. Train it with TicketCallback(ticket); or to prune it now, write "
            "Ticket.from_masks(ticket.masks, model)."
        )
    return {name: values[name] for name in weights}

"""Other values for the masks of a ticket, such as those of the trained network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.tickets.network import differences, starting_values
from lightning_lottery.tickets.state_dict import Weights, read_checkpoint, tensors_in

# Training hardly ever makes a weight exactly zero, and a pruning removes a larger fraction than this.
_LOST = 0.005


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
        TicketError: Names or shapes differ, pruned weights are not zero, or survivors are; the message names them.
    """
    if isinstance(source, nn.Module):
        where, values = "the network", starting_values(source)
    else:
        where = "the state dict"
        values = tensors_in(read_checkpoint(source) if isinstance(source, (str, Path)) else source)
    if faults := differences(weights, values, where):
        raise TicketError(
            f"The values do not fit the ticket: {'; '.join(faults)}. If only names differ, load the checkpoint "
            "into the network and pass that."
        )
    if alive := [name for name, mask in masks.items() if bool(values[name].masked_select(~mask.cpu()).any())]:
        raise TicketError(
            f"Pruned weights are not zero in {', '.join(map(repr, alive))}: these values were trained without the "
            "mask, or in another round. Take the ticket of their round, or train with TicketCallback(ticket)."
        )
    kept = sum(int(mask.count_nonzero()) for mask in masks.values())
    lost = sum(int((mask.cpu() & (values[n] == 0) & (weights[n].cpu() != 0)).sum()) for n, mask in masks.items())
    if lost > _LOST * kept:
        raise TicketError(
            f"{lost:,} of {kept:,} survivors of the ticket are zero in these values, which therefore seem to be "
            "those of a later round. Take the ticket of their round."
        )
    return {name: values[name] for name in weights}

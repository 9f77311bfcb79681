"""A ticket as a smaller dense network: its dead channels are removed physically."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.channels import (
    Group,
    copy_of,
    find_coupling,
    in_single_precision,
    largest_difference,
    outputs_of,
    remove,
    to_device_of,
)
from lightning_lottery.errors import ExportError
from lightning_lottery.export.dead import dead_units
from lightning_lottery.storage import GivenTicket
from lightning_lottery.tickets import Masking, Ticket, masked_parameters

_TOLERANCE = 1e-5


def compact(model: nn.Module, ticket: Ticket | str | Path, example: Any) -> nn.Module:
    """Removes the channels that a ticket has made superfluous, and gives an ordinary smaller network.

    The weights are those that the network has now, with the ticket's masks; train it first, or call
    ``ticket.apply(model)`` for the starting values. Removed are channels that are always zero, as those of
    :class:`CoupledChannels`, and channels that no following layer uses or that no input reaches, as in
    unstructured tickets of small density. The outputs of both networks are compared on the example.

    Args:
        model: The network, for example a LightningModule after its fit. It is not changed.
        ticket: The ticket, or the path of its file.
        example: Real inputs that the network is called with: a tensor with the samples along its first dimension,
            a tuple of arguments, or a dictionary of keyword arguments.

    Returns:
        A copy in evaluation mode, of the same classes, with smaller layers. It belongs to no Trainer. If no
        channel is superfluous, it has the size of the original.

    Raises:
        ConfigurationError: ``torch-pruning`` is not installed (extra ``structured``), the network fails on the
            example, or it cannot be traced.
        ExportError: The outputs differ by more than 1e-5 of the largest output.
        TicketError: The ticket does not fit the network.
    """
    masked = masked_copy(model, ticket)
    example = to_device_of(masked, example)
    groups = find_coupling(masked, example).groups
    expected = _single_precision_outputs(masked, example)
    small, difference = _without_dead_units(masked, groups, example, expected, unused=True)
    if difference > _TOLERANCE:
        # Something besides the following layers may use channels, so that only those can go that are zero.
        small, difference = _without_dead_units(masked, groups, example, expected, unused=False)
    if difference > _TOLERANCE:
        raise ExportError(
            f"The outputs of the compact {type(model).__name__} differ from those of the masked one by "
            f"{difference:.1g} of the largest output; at most {_TOLERANCE:g} is allowed. So nothing is exported. "
            "Some layer depends on the number of its channels."
        )
    return small


def masked_copy(model: nn.Module, ticket: Ticket | str | Path) -> nn.Module:
    """A copy of a network in evaluation mode, with the masks of a ticket applied to its present weights.

    Raises:
        TicketError: The ticket does not fit the network, or is none.
    """
    given = GivenTicket.of(ticket, "ticket").ticket
    given.check_fits(model)
    copied = copy_of(model)
    Masking(*masked_parameters(given, copied)).mask_weights()
    return copied


def _without_dead_units(
    masked: nn.Module, groups: Sequence[Group], example: Any, expected: Sequence[Tensor], unused: bool
) -> tuple[nn.Module, float]:
    """A copy without dead units, and how much its outputs differ."""
    small = copy_of(masked)
    remove(small, dead_units(small, groups, example, unused))
    return small, largest_difference(_single_precision_outputs(small, example), expected)


def _single_precision_outputs(module: nn.Module, example: Any) -> list[Tensor]:
    """The outputs, computed in at least single precision, so that rounding does not hide or cause a difference."""
    halves = (torch.float16, torch.bfloat16)
    if not any(parameter.dtype in halves for parameter in module.parameters()):
        return outputs_of(module, example)
    return outputs_of(copy_of(module).float(), in_single_precision(example))

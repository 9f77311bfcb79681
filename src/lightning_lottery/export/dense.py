"""The network with the masks of a ticket: what every export must agree with."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_lottery.channels import check_example, copy_of, to_device_of
from lightning_lottery.storage import GivenTicket
from lightning_lottery.tickets import Masking, Ticket, check_is_network, masked_parameters


@torch.inference_mode(False)
def dense(model: nn.Module, ticket: Ticket | str | Path | None) -> nn.Module:
    """Copies a network and sets its pruned weights to zero. The copy keeps its size and its speed.

    Args:
        model: The network, with the weights to export. It is not changed.
        ticket: The ticket, or the path of its file; ``None`` copies a network that needs no masks, for example the
            result of :func:`compact`.

    Returns:
        A copy in evaluation mode. It belongs to no Trainer.

    Raises:
        ConfigurationError: The network cannot be copied.
        TicketError: ``ticket`` is not a ticket, or does not fit the network.
    """
    check_is_network(model)
    if ticket is None:
        return copy_of(model)
    given = GivenTicket.of(ticket, "ticket").ticket
    given.check_fits(model)
    copied = copy_of(model)
    Masking(*masked_parameters(given, copied)).mask_weights()
    return copied


def masked_and_example(
    model: nn.Module, ticket: Ticket | str | Path | None, example: Any
) -> tuple[nn.Module, Any]:
    """The result of :func:`dense`, and a checked copy of an example on its device.

    Raises:
        ConfigurationError: The example has no tensor, or an empty one; or as for :func:`dense`.
        TicketError: As for :func:`dense`.
    """
    masked = dense(model, ticket)
    check_example(example)
    return masked, to_device_of(masked, example)

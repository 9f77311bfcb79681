"""Tickets for tests, with random masks."""

from typing import Any

import torch
from torch import nn

from lightning_lottery import Ticket
from lightning_lottery.tickets.network import starting_values


def ticket_of(module: nn.Module, density: float = 0.3, **fields: Any) -> Ticket:
    """A ticket of a network with random masks."""
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(p.shape, generator=generator) < density
        for name, p in module.named_parameters()
        if p.dim() > 1
    }
    return Ticket(masks, starting_values(module), **fields)


def assert_masked(module: nn.Module, ticket: Ticket) -> None:
    """Checks that exactly the pruned weights of a network are zero, up to survivors that happen to be zero."""
    for name, mask in ticket.masks.items():
        assert not module.get_parameter(name)[~mask].any(), name
        assert module.get_parameter(name)[mask].any(), name

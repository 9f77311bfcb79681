"""Lets copies of trained weights begin a round as their originals do."""

from collections.abc import Mapping
from dataclasses import replace

from lightning_lottery.pruning import are_equal
from lightning_lottery.tickets.ticket import Ticket


def follow(ticket: Ticket, dense: Ticket, copies: Mapping[str, str | None]) -> Ticket:
    """Lets copies begin a round as their originals do.

    Args:
        ticket: The ticket of the round.
        dense: The ticket whose weights it returns to.
        copies: The names of originals by those of copies.

    Returns:
        The ticket in which a copy has the values of its original, if it has them in ``dense`` too; else it keeps
        its own, and zeros where its original is pruned. An average of both then stays zero there.
    """
    weights = dict(ticket.weights)
    for name, original in copies.items():
        if original is None or name not in weights:
            continue
        if are_equal(dense.weights[name], dense.weights[original]):
            weights[name] = ticket.weights[original].clone()
        elif original in ticket.masks:
            weights[name] = weights[name].masked_fill(~ticket.masks[original], 0)
    return replace(ticket, weights=weights)

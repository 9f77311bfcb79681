"""Gives copies of trained weights their values at the start of a round."""

from collections.abc import Mapping
from dataclasses import replace

from lightning_lottery.pruning import are_equal
from lightning_lottery.tickets import Ticket


def update_copies(ticket: Ticket, dense: Ticket, copies: Mapping[str, str | None]) -> Ticket:
    """Makes copies start a round like their originals.

    Args:
        ticket: The ticket of the round.
        dense: The dense ticket with the weights that rounds return to.
        copies: For each copy the name of its original, or ``None``.

    Returns:
        A ticket in which each copy has the values of its original, if both are equal in ``dense``. Otherwise the
        copy keeps its values, except for zeros where its original is pruned, so that an average of both stays
        zero.
    """
    weights = dict(ticket.weights)
    for name, original in copies.items():
        if original is None or name not in weights:
            continue
        if are_equal(dense.weights[name], dense.weights[original]):
            weights[name] = ticket.weights[original].clone()
        elif original in ticket.masks:
            weights[name] = weights[name].masked_fill(~ticket.masks[original], 0)
    return replace(ticket, weights=weights) if copies else ticket

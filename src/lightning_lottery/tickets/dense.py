"""The ticket of round 0, in which every weight survives unless the run starts from a ticket."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from lightning_lottery.masks import is_sharded, like, local, place
from lightning_lottery.tickets.network import starting_values
from lightning_lottery.tickets.provenance import provenance
from lightning_lottery.tickets.ticket import Ticket


def dense_ticket(
    module: nn.Module,
    parameters: Mapping[str, nn.Parameter],
    described: Mapping[str, str] | None = None,
    start: Ticket | None = None,
    following: Sequence[str] = (),
) -> Ticket:
    """Makes the ticket of round 0, in which every weight survives with its current value.

    Args:
        module: The network.
        parameters: Its prunable parameters by name.
        described: Criterion, scope, pattern and rewinding rule, as strings.
        start: The ticket that the run starts from, if any: only its weights survive. The network has its values.
        following: The names of parameters that have masks, too, but are not prunable; see :class:`Ticket`.

    Returns:
        The ticket, on the CPU unless it is sharded.
    """
    given = {} if start is None else start.masks
    followers = dict.fromkeys([*following, *(() if start is None else start.following)])
    masked = {**parameters, **{name: module.get_parameter(name) for name in followers if name not in parameters}}
    masks = {
        name: _placed(given[name], parameter) if name in given else _all_alive(parameter)
        for name, parameter in masked.items()
    }
    return Ticket(
        masks,
        starting_values(module),
        provenance=provenance(module, torch.initial_seed(), described or {}),
        following=[name for name in masked if name not in parameters],
    )


def _placed(mask: Tensor, parameter: Tensor) -> Tensor:
    """A mask that is sharded like its parameter, or else on the CPU."""
    return place(mask, parameter) if is_sharded(parameter) else mask.cpu()


def _all_alive(parameter: Tensor) -> Tensor:
    """The mask of a parameter of which nothing is pruned."""
    # Contiguous, whatever the layout of the weights, since masks are written and read in this form.
    if not is_sharded(parameter):
        return torch.ones(parameter.shape, dtype=torch.bool)
    part = local(parameter)
    return like(torch.ones(part.shape, dtype=torch.bool, device=part.device), parameter)

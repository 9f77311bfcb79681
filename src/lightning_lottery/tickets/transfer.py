"""Carries masks and weights over to another network, with other names or other shapes in some layers."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_lottery.errors import TicketError
from lightning_lottery.masks import Masks
from lightning_lottery.pruning import check_and_select
from lightning_lottery.tickets.network import check_is_network, first_names, starting_values, tensors_of

StartFrom = Literal["ticket", "model", "signs"]


@dataclass(frozen=True)
class Carried:
    """What was carried over to another network.

    Attributes:
        carried: The names in that network of all masks and values that come from the ticket.
        skipped: What was not carried over, by its name in the ticket, each with the reason.
        left_dense: The prunable parameters of the network for which the ticket has no mask.
    """

    carried: list[str]
    skipped: dict[str, str]
    left_dense: list[str]


def carry(
    masks: Masks,
    weights: Mapping[str, Tensor],
    following: Collection[str],
    module: nn.Module,
    rename: Mapping[str, str],
    start_from: StartFrom,
) -> tuple[Masks, dict[str, Tensor], list[str], Carried]:
    """Carries masks and weights over to a network; see :meth:`Ticket.transfer`.

    Returns:
        A mask for each prunable parameter of the network, and for each that follows one in the ticket; the values
        to start from; the names of those that follow; and where all this comes from.

    Raises:
        ConfigurationError: The network has nothing prunable.
        TicketError: ``rename`` or ``start_from`` is invalid, or no mask fits.
    """
    if start_from not in get_args(StartFrom):
        raise TicketError(f"weights={start_from!r} must be one of {', '.join(map(repr, get_args(StartFrom)))}.")
    check_is_network(module)
    prunable = check_and_select(module, is_initial=False).parameters
    start = starting_values(module)
    wanted = {n: new for n, new in renamed(list(weights), rename).items() if n in masks or start_from == "ticket"}
    targets, skipped = _targets(wanted, masks, weights, module)
    made = {new: masks[name] for name, new in targets.items() if name in masks}
    if made.keys() <= (followers := {targets[name] for name in following if name in targets}):
        raise TicketError(_nothing_carried(list(masks), list(prunable), skipped))
    for name, new in targets.items():
        if start_from == "ticket":
            start[new] = weights[name].to(start[new].dtype)
        elif start_from == "signs":
            start[new] = _with_signs(start[new], weights[name])
    left_dense = [name for name in prunable if name not in made]
    made |= {name: torch.ones(prunable[name].shape, dtype=torch.bool) for name in left_dense}
    in_order = {name: made[name] for name, _ in module.named_parameters() if name in made}
    carried = Carried(list(targets.values()), skipped, left_dense)
    return in_order, start, [name for name in in_order if name in followers], carried


def _targets(
    wanted: Mapping[str, str], masks: Masks, weights: Mapping[str, Tensor], module: nn.Module
) -> tuple[dict[str, str], dict[str, str]]:
    """Finds the parameters and buffers of a network that masks and weights fit.

    Args:
        wanted: The names in the network by those in the ticket.
        masks: The masks of the ticket.
        weights: Its weights.
        module: The network.

    Returns:
        The first names in the network of what fits, and the reasons for what does not, by the names in the ticket.
    """
    parameters, tensors, first = dict(module.named_parameters()), tensors_of(module), first_names(module)
    fitting: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name, new_name in wanted.items():
        new = first.get(new_name, new_name)
        if new in fitting.values():
            skipped[name] = f"{new_name!r} is tied to {new!r}, which has a value already"
        elif new not in tensors:
            skipped[name] = f"the network has no {new!r}"
        elif tensors[new].shape != weights[name].shape:
            shapes = f"{tuple(weights[name].shape)} in the ticket and {tuple(tensors[new].shape)} in the network"
            skipped[name] = f"its shape is {shapes}"
        elif name in masks and new not in parameters:
            skipped[name] = f"{new!r} is not a parameter of the network"
        else:
            fitting[name] = new
    return fitting, skipped


def _with_signs(values: Tensor, signs: Tensor) -> Tensor:
    """Magnitudes with the signs of other values; where these are zero, the values keep their own."""
    return torch.where(signs == 0, values, values.abs() * signs.sign().to(values.dtype))


def renamed(names: list[str], rename: Mapping[str, str]) -> dict[str, str]:
    """The new name of each name. The first pattern that matches counts; other names stay.

    Args:
        names: The names.
        rename: New names by patterns, in which ``*`` stands for any characters. Each ``*`` in a new name stands
            for what the ``*`` at the same place in the pattern has matched.

    Raises:
        TicketError: A pattern matches nothing, a new name has more ``*`` than its pattern, or two names get the
            same new name.
    """
    if not isinstance(rename, Mapping) or not all(isinstance(part, str) for part in (*rename, *rename.values())):
        raise TicketError(
            f"rename={rename!r} must be a dictionary of new names by patterns, such as "
            "{'model.*': 'backbone.*'}."
        )
    for pattern, new in rename.items():
        if new.count("*") > pattern.count("*"):
            raise TicketError(f"rename={{{pattern!r}: {new!r}}} has more '*' in the new name than in the pattern.")
        if not any(_pattern(pattern).fullmatch(name) for name in names):
            raise TicketError(
                f"rename={{{pattern!r}: {new!r}}} matches nothing in the ticket, which has {', '.join(names)}."
            )
    made = {name: _renamed(name, rename) for name in names}
    for new in made.values():
        if len(same := [name for name, other in made.items() if other == new]) > 1:
            raise TicketError(
                f"rename={dict(rename)!r} gives {' and '.join(map(repr, same))} the same name {new!r}."
            )
    return made


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for pattern, new in rename.items():
        if match := _pattern(pattern).fullmatch(name):
            fixed, *others = new.split("*")
            return fixed + "".join(a + b for a, b in zip(match.groups(), others, strict=False))
    return name


def _pattern(pattern: str) -> "re.Pattern[str]":
    return re.compile("(.*)".join(map(re.escape, pattern.split("*"))))


def _nothing_carried(masked: list[str], prunable: list[str], skipped: Mapping[str, str]) -> str:
    """The error if no mask fits, with a suggestion if only a prefix differs."""
    reasons = "; ".join(f"{name!r}: {why}" for name, why in skipped.items() if name in masked)
    for name in masked:
        for other in prunable:
            if other.endswith(f".{name}"):
                rename = {"*": f"{other.removesuffix(name)}*"}
            elif name.endswith(f".{other}"):
                rename = {f"{name.removesuffix(other)}*": "*"}
            else:
                continue
            return f"No mask of the ticket fits the network ({reasons}). Write rename={rename}."
    return f"No mask of the ticket fits the network ({reasons}). Its prunable layers are {', '.join(prunable)}."

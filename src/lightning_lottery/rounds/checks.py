"""Checks while a round trains: the pruned parameters are still there, and an optimizer trains them."""

import math
from collections.abc import Collection, Mapping

import torch
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor, nn

from lightning_lottery.errors import TrainingError
from lightning_lottery.masks import count, local
from lightning_lottery.plain import first_of
from lightning_lottery.pruning import Kind, kinds_of
from lightning_lottery.storage import RoundRecord
from lightning_lottery.tickets import is_finite, values_of


def replaced(module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> list[str]:
    """The names of parameters that were replaced or removed in a network."""
    present = dict(module.named_parameters())
    return [name for name, parameter in parameters.items() if present.get(name) is not parameter]


def check_parameters(name: str, module: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    """Checks that a network still has the parameters that are pruned.

    Raises:
        TrainingError: Some were replaced or removed, so that their masks have no effect.
    """
    if gone := replaced(module, parameters):
        raise TrainingError(
            f"During {name}, the prunable parameters {gone} were replaced or removed, so that their masks have no "
            "effect. Change the network before fit, change values in place (parameter.data.copy_), or leave such "
            f"parameters out of the masks (in a search, exclude={gone})."
        )


def check_something_left(name: str, copies: Collection[str], parameters: Collection[str]) -> None:
    """Checks that something is left to prune.

    Raises:
        TrainingError: All prunable parameters are copies.
    """
    if len(copies) == len(parameters):
        raise TrainingError(
            f"During {name}, all prunable weights changed without ever having a gradient. Something other than an "
            "optimizer writes to them, so they cannot be pruned. Train them with an optimizer, or add other "
            "parameters with include."
        )


def check_steps(what: str, instead: str, module: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Checks that a number of steps can be reached, after an epoch in which Lightning counted no steps.

    Args:
        what: What is given in steps.
        instead: How to write it in epochs.
        module: The network.
        start: Its weights at the start of the round.

    Raises:
        TrainingError: Weights have changed, so there were steps that Lightning does not count.
    """
    if has_changed(module, start):
        raise TrainingError(
            f"{what} is given in steps, but Lightning does not count the steps of optimizers from "
            "self.optimizers(use_pl_optimizer=False). Use those from self.optimizers(), or write epochs, for "
            f"example {instead}."
        )


def check_no_batches_seen(name: str, has_seen_batches: bool) -> None:
    """Checks that a round without steps has not seen any data.

    Raises:
        TrainingError: It has seen data.
    """
    if has_seen_batches:
        raise TrainingError(
            f"{name} has seen batches, but Lightning has counted no optimizer step, and no weight has changed. In "
            "manual optimization, step the optimizers that self.optimizers() returns."
        )


def warn_if_repeated(record: RoundRecord, ticket: RoundRecord) -> None:
    """Warns if a training with other random numbers gave the same metrics as the one that it repeats."""
    if record.metrics and record.metrics == ticket.metrics and record.curve == ticket.curve:
        rank_zero_warn(
            f"{record.id} gave the same metrics as {ticket.id} although its random numbers differ, so it shows no "
            "noise. Is anything random in this training? Shuffle the training data, for example."
        )


def has_changed(module: nn.Module, start: Mapping[str, Tensor]) -> bool:
    """Whether any parameter has changed since the start of the round."""
    known = set(start)
    pairs = ((local(p.detach()), local(start[n]).to(p.device)) for n, p in module.named_parameters() if n in known)
    return not all(now.shape == then.shape and torch.equal(now, then) for now, then in pairs)


def warn_if_added(name: str, module: nn.Module, known: Mapping[str, Tensor]) -> None:
    """Warns about matrices that were added during a round, since they are not pruned.

    Args:
        name: Name of the round.
        module: The network.
        known: Its parameters and buffers at the start of the round, by name.
    """
    there = set(known)
    added = [n for n, kind in kinds_of(module).items() if kind is Kind.MATRIX and n not in there]
    if added:
        rank_zero_warn(
            f"During {name}, {added} were added to the network. They are not pruned, and the next round starts "
            "without them. Create them before fit, in the constructor or in configure_model."
        )


def check_finite(
    name: str, module: nn.Module, monitor: str | None = None, metrics: Mapping[str, Tensor] | None = None
) -> None:
    """Warns if weights, buffers or the monitored metric are NaN or infinite at the end of a training.

    Args:
        name: Name of the round.
        module: The network.
        monitor: Name of the monitored metric.
        metrics: The metrics at the end.
    """
    broken = [n for n, p in module.named_parameters() if not is_finite(p.detach())]
    # Some buffers contain infinity on purpose, such as attention masks.
    broken += [n for n, b in module.named_buffers() if bool(values_of(local(b)).isnan().any())]
    value = (metrics or {}).get(monitor) if monitor is not None else None
    if broken:
        shown = first_of([repr(entry) for entry in broken])
        rank_zero_warn(
            f"{name} has diverged: at its end, {shown} contained NaN or infinity. Its metrics are "
            "meaningless. Lower the learning rate, clip gradients, or prune less. If a layer divides weights "
            "by their norm in its own way, leave them out with exclude.",
        )
    elif value is not None and not math.isfinite(float(value)):
        rank_zero_warn(f"{name} ended with {monitor!r} at {float(value)}.")


def warn_if_emptied(name: str, masks: Mapping[str, Tensor], remedy: str) -> None:
    """Warns about layers that keep no weight.

    Args:
        name: Name of the round.
        masks: Its masks.
        remedy: What to do about it.
    """
    emptied = [layer for layer, kept in zip(masks, count(list(masks.values())), strict=True) if kept == 0]
    if emptied:
        rank_zero_warn(
            f"{name} keeps no weight of {', '.join(map(repr, emptied))}. The layers after them no longer "
            f"receive the input. {remedy}",
        )

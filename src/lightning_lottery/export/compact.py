"""A ticket as a smaller dense network: its dead channels are removed physically."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_lottery.channels import (
    Trial,
    copy_of,
    find_coupling,
    largest_difference,
    remove,
    require_gradients,
    unreached,
)
from lightning_lottery.errors import ConfigurationError, ExportError
from lightning_lottery.export.agreement import check_finite
from lightning_lottery.export.dead import dead_units
from lightning_lottery.export.dense import masked_and_example
from lightning_lottery.plain import first_of
from lightning_lottery.tickets import Ticket

_TOLERANCE = 1e-5
_KERNELS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.inference_mode(False)
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
            a tuple of arguments, or a dictionary of keyword arguments. They should reach all layers: a layer that
            is not called keeps its size.

    Returns:
        A copy in evaluation mode, of the same classes, with smaller layers. It belongs to no Trainer. If no
        channel is superfluous, it has the size of the original.

    Raises:
        ConfigurationError: ``torch-pruning`` is not installed (extra ``structured``), the network fails on the
            example, or it cannot be traced.
        ExportError: The outputs differ by more than 1e-5 of the largest output.
        TicketError: The ticket does not fit the network.
    """
    return compacted(*masked_and_example(model, ticket, example))


def compacted(masked: nn.Module, example: Any) -> nn.Module:
    """Removes superfluous channels of a network whose weights are masked already. It is not changed.

    Args:
        masked: The network, in evaluation mode.
        example: What it is called with, on its device.

    Raises:
        ConfigurationError: As for :func:`compact`.
        ExportError: As for :func:`compact`.
    """
    groups = find_coupling(masked, example).groups
    trial = Trial.of(masked, example)
    expected = trial.outputs(trial.network(masked))
    check_finite(masked, expected)
    # Something besides the following layers may use channels, or a constant may be rounded as it becomes part of a
    # bias. Then only channels can go that are zero.
    for options in ({"unused": True, "fold": True}, {"unused": True}, {}):
        small = copy_of(masked)
        remove(small, dead_units(small, groups, example, **options))
        difference = _difference(trial, small, expected)
        if difference <= _TOLERANCE:
            _warn_of_unreached(masked, small, example)
            return small
    raise ExportError(
        f"The outputs of the compact {type(masked).__name__} differ from those of the masked one by "
        f"{difference:.1g} of the largest output; at most {_TOLERANCE:g} is allowed. So nothing is exported. "
        "Some layer depends on the number of its channels."
    )


def _difference(trial: Trial, small: nn.Module, expected: Sequence[Tensor]) -> float:
    """How much the outputs of a smaller network differ; infinite if it does not run."""
    try:
        return largest_difference(trial.outputs(trial.network(small)), expected)
    except ConfigurationError:
        return math.inf


def _warn_of_unreached(masked: nn.Module, small: nn.Module, example: Any) -> None:
    """Warns of layers that the example does not reach, which may expect channels that are gone."""
    if sum(p.numel() for p in small.parameters()) == sum(p.numel() for p in masked.parameters()):
        return
    copied = require_gradients(copy_of(masked))
    kernels = {
        f"{name}.weight".lstrip(".") for name, layer in copied.named_modules() if isinstance(layer, _KERNELS)
    }
    if missed := [name for name in unreached(copied, example) if name in kernels]:
        warnings.warn(
            f"The example does not reach {first_of(missed)}, so the exported network may fail on inputs that do. "
            "Pass an example that reaches all layers that will be used.",
            stacklevel=5,
        )

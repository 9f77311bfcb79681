"""The fastest form of a ticket on this machine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import torch
from torch import nn

from lightning_lottery.channels import copy_of, resized, samples_in
from lightning_lottery.errors import ExportError
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.compact import compacted
from lightning_lottery.export.dense import masked_and_example
from lightning_lottery.export.measure import FASTER, Speedup, stored_parameters
from lightning_lottery.export.measurement import Measurement, measure
from lightning_lottery.export.report import ExportReport, check_timing
from lightning_lottery.export.sparse import sparse_layers, with_sparse_layers
from lightning_lottery.plain import first_line
from lightning_lottery.tickets import Ticket

DENSE, COMPACT, SPARSE, BOTH = "dense", "compact", "sparse", "compact and sparse"


@torch.inference_mode(False)
def best(
    model: nn.Module,
    ticket: Ticket | str | Path | None,
    example: Any,
    batch_sizes: Sequence[int] | None = None,
    turns: int = 11,
    seconds: float = 0.1,
) -> tuple[nn.Module, ExportReport]:
    """Tries the dense, the compact and the sparse network, and both together, and keeps the fastest.

    All are measured on this machine, in turns. The fastest has the largest geometric mean of the speedups over the
    batch sizes. One that is slower than the dense network at any of them is not kept; among those that are
    equally fast, up to noise (5 %), the one with the smallest file is.

    Args:
        model: The network, with the weights to export, for example a LightningModule after its fit. It is not
            changed.
        ticket: The ticket, or the path of its file; ``None`` for a network whose weights are masked already.
        example: Real inputs that the network is called with; see :func:`compact`. Their samples are repeated or
            left out for a batch size.
        batch_sizes: The batch sizes that count; by default that of the example.
        turns: How many times each network is timed; they take turns.
        seconds: The least duration of a turn of one network.

    Returns:
        The network, a copy in evaluation mode; and the numbers of all forms, with the reasons for those that were
        left out. For example, the compact network is left out if the extra ``structured`` is not installed.

    Raises:
        ConfigurationError: An argument is invalid, or the network fails on the example or at a batch size.
        ExportError: The outputs contain no finite number.
        TicketError: The ticket does not fit the network.
    """
    masked, example = masked_and_example(model, ticket, example)
    sizes = [samples_in(example) or 1] if batch_sizes is None else batch_sizes
    check_timing(sizes, turns, seconds)
    examples = [resized(example, size) for size in sizes]
    # Tensors of a single sample are contiguous in any memory format.
    expected = Expected.of(copy_of(masked), examples, [resized(example, 2)])
    networks, left_out = _forms(masked, example, examples, expected)
    # Calls may leave something in a network, so that copies are timed.
    copies = [copy_of(network) for network in networks.values()]
    forms = dict(zip(networks, measure(copies, expected, example, sizes, turns, seconds), strict=True))
    kept = fastest(forms)
    return networks[kept], ExportReport(forms, kept, left_out)


def _forms(
    masked: nn.Module, example: Any, examples: Sequence[Any], expected: Expected
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """The forms of a network that agree with it, and the reasons for those that are left out."""
    networks, left_out = {DENSE: masked}, {}
    makers: dict[str, Callable[[], nn.Module]] = {
        COMPACT: lambda: _smaller(masked, example),
        SPARSE: lambda: _sparser(masked, examples, expected),
        BOTH: lambda: _sparser(networks[COMPACT], examples, expected),
    }
    for form, make in makers.items():
        if form == BOTH and COMPACT not in networks:
            continue
        try:
            made = make()
        except Exception as error:  # whatever fails, the other forms are still of use
            left_out[form] = first_line(error)
            continue
        if expected.agrees(copy_of(made)):
            networks[form] = made
        else:
            left_out[form] = "Its outputs differ at these batch sizes."
    return networks, left_out


def _smaller(masked: nn.Module, example: Any) -> nn.Module:
    made = compacted(masked, example)
    if stored_parameters(made) == stored_parameters(masked):
        raise ExportError("All channels are still used.")
    return made


def _sparser(network: nn.Module, examples: Sequence[Any], expected: Expected) -> nn.Module:
    made = with_sparse_layers(network, examples, expected)
    if not sparse_layers(made):
        raise ExportError("No linear layer is faster when it is sparse, with the same outputs.")
    return made


def fastest(forms: Mapping[str, Measurement]) -> str:
    """Chooses a form. The first one is dense.

    Args:
        forms: All forms in numbers.

    Returns:
        The name of the smallest among the fastest.
    """
    dense, *others = forms
    candidates = [form for form in others if not any(ratio.is_slower for ratio in forms[form].speedup.values())]
    means = {dense: 1.0} | {form: geometric_mean(map(_gain, forms[form].speedup.values())) for form in candidates}
    close = [form for form, mean in means.items() if mean * FASTER >= max(means.values())]
    return min(close, key=lambda form: forms[form].bytes)


def _gain(speedup: Speedup) -> float:
    """The speedup; 1 if it may be noise."""
    return speedup.median if speedup.is_faster else 1.0

"""What an exported network gains, measured on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn

from lightning_lottery.channels import (
    check_example,
    copy_of,
    largest_difference,
    outputs_of,
    resized,
    to_device_of,
)
from lightning_lottery.errors import ConfigurationError
from lightning_lottery.export.compact import masked_copy
from lightning_lottery.export.measure import Latency, Measurement, durations
from lightning_lottery.plain import check_integer, check_list, check_number
from lightning_lottery.report import aligned
from lightning_lottery.tickets import Ticket

# A ratio of latencies below this one may be noise.
_FASTER = 1.05


@dataclass(frozen=True)
class ExportReport:
    """An exported network beside the masked one. Printing it shows a table and a sentence.

    Attributes:
        dense: The masked network, with all its channels.
        exported: The exported network.
        speedup: By batch size, how many times faster the exported network is: the median of the ratios within a
            turn.
        difference: The largest difference of outputs, relative to the largest output.
    """

    dense: Measurement
    exported: Measurement
    speedup: Mapping[int, float]
    difference: float

    @classmethod
    def measure(
        cls,
        model: nn.Module,
        ticket: Ticket | str | Path,
        exported: nn.Module,
        example: Any,
        batch_sizes: Sequence[int] = (1, 32),
        turns: int = 11,
        seconds: float = 0.1,
    ) -> "ExportReport":
        """Measures an exported network beside the network that it was made from, on the device that they are on.

        Args:
            model: The network.
            ticket: The ticket, or the path of its file.
            exported: The result of :func:`compact`.
            example: Real inputs; see :func:`compact`. Their samples are repeated or left out for a batch size.
            batch_sizes: The batch sizes to time.
            turns: How many times each network is timed; they take turns.
            seconds: The least duration of a turn of one network.

        Raises:
            ConfigurationError: An argument is invalid, or a network fails on the example or at a batch size.
            TicketError: The ticket does not fit the network.
        """
        check_list("batch_sizes", batch_sizes, "batch_sizes=[1, 32]")
        if not batch_sizes:
            raise ConfigurationError("batch_sizes=[] times nothing. Write for example batch_sizes=[1, 32].")
        for size in batch_sizes:
            check_integer("batch_sizes", size, 1, "batch_sizes=[1, 32]")
        check_integer("turns", turns, 2, "turns=11")
        check_number("seconds", seconds, "above 0", "seconds=0.1")
        if not isinstance(exported, nn.Module):
            raise ConfigurationError(f"exported={exported!r:.99} is not a network. Write compact(...) first.")
        check_example(example)
        masked, small = masked_copy(model, ticket), copy_of(exported)
        example = to_device_of(masked, example)
        difference = largest_difference(outputs_of(small, example), outputs_of(masked, example))
        times = {size: durations([masked, small], resized(example, size), turns, seconds) for size in batch_sizes}
        latencies = [{size: Latency.of(both[place]) for size, both in times.items()} for place in (0, 1)]
        return cls(
            dense=Measurement.of(masked, example, latencies[0]),
            exported=Measurement.of(small, example, latencies[1]),
            speedup={size: median(a / b for a, b in zip(*both, strict=True)) for size, both in times.items()},
            difference=difference,
        )

    @property
    def sentence(self) -> str:
        """What is gained, in one sentence."""
        smaller = self.exported.parameters / self.dense.parameters
        faster = {size: ratio for size, ratio in self.speedup.items() if ratio >= _FASTER}
        if self.exported.parameters == self.dense.parameters:
            return "Nothing to gain: the ticket leaves no channel without use, so that the network keeps its size."
        if not faster:
            return (
                f"Nothing to gain in speed: the exported network has {smaller:.1%} of the parameters, but is not "
                "measurably faster here."
            )
        speeds = " and ".join(f"{ratio:.1f} x as fast at batch size {size}" for size, ratio in faster.items())
        return f"The exported network has {smaller:.1%} of the parameters, and is {speeds}."

    def __str__(self) -> str:
        rows = [["", "masked", "exported", "ratio"]]
        for name, a, b in (
            ("parameters", self.dense.parameters, self.exported.parameters),
            ("bytes on disk", self.dense.bytes, self.exported.bytes),
            ("FLOPs per sample", self.dense.flops, self.exported.flops),
        ):
            rows.append([name, f"{a:,}", f"{b:,}", f"{b / a:.3f}" if a else "-"])
        for size, ratio in self.speedup.items():
            latencies = (str(part.latency[size]) for part in (self.dense, self.exported))
            rows.append([f"latency, batch size {size}", *latencies, f"{1 / ratio:.3f}"])
        difference = f"Largest difference of outputs: {self.difference:.1g} of the largest output."
        return "\n\n".join([aligned(rows, left={0}), f"{self.sentence}\n{difference}"])

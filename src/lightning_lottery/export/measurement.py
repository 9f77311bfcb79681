"""A network in numbers, beside the dense one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from lightning_lottery.channels import resized
from lightning_lottery.export.agreement import Expected
from lightning_lottery.export.measure import (
    Latency,
    Speedup,
    durations,
    flops_per_sample,
    saved_bytes,
    stored_parameters,
)
from lightning_lottery.plain import finite


@dataclass(frozen=True)
class Measurement:
    """A network in numbers.

    Attributes:
        parameters: Number of parameters; of sparse layers, those that are stored.
        bytes: Size of the file that ``torch.save`` writes for its ``state_dict``; of an ONNX file, its size.
        flops: Floating-point operations of a forward pass for one sample, in matrix products and convolutions: a
            multiplication and an addition count as two. 0 if PyTorch cannot count them.
        latency: The duration of a forward pass, by batch size.
        speedup: By batch size, how many times faster than the dense network it is.
        difference: The largest difference from the outputs of the dense network, relative to the largest output.
    """

    parameters: int
    bytes: int
    flops: int
    latency: Mapping[int, Latency]
    speedup: Mapping[int, Speedup]
    difference: float

    def to_json(self) -> dict[str, Any]:
        """All numbers as plain values for JSON, with batch sizes as strings."""
        by_size = {
            name: {str(size): asdict(quartiles) for size, quartiles in of.items()}
            for name, of in (("latency", self.latency), ("speedup", self.speedup))
        }
        values: dict[str, Any] = finite({**asdict(self), **by_size})
        return values


def measure(
    networks: Sequence[nn.Module],
    expected: Expected,
    example: Any,
    batch_sizes: Sequence[int],
    turns: int,
    seconds: float,
) -> list[Measurement]:
    """Measures networks that compute the same; they take turns, so that slow phases affect all of them.

    Args:
        networks: The networks, in evaluation mode. The first one is the dense network.
        expected: The outputs of the dense network.
        example: What they are called with.
        batch_sizes: The batch sizes to time.
        turns: How many times each network is timed.
        seconds: The least duration of a turn of one network.

    Raises:
        ConfigurationError: A network fails on an example.
    """
    differences = [expected.difference(network) for network in networks]
    times = {size: durations(networks, resized(example, size), turns, seconds) for size in batch_sizes}
    made = []
    for place, network in enumerate(networks):
        own = {size: seconds_of[place] for size, seconds_of in times.items()}
        made.append(
            Measurement(
                parameters=stored_parameters(network),
                bytes=saved_bytes(network),
                flops=flops_per_sample(network, example),
                latency={size: Latency.of(durations) for size, durations in own.items()},
                speedup={
                    size: Speedup.of([a / b for a, b in zip(times[size][0], durations, strict=True)])
                    for size, durations in own.items()
                },
                difference=differences[place],
            )
        )
    return made

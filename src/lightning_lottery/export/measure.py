"""The size and the speed of a network on this machine."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import IO, Any, cast

import torch
from torch import nn
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from lightning_lottery.channels import call, isolated, resized


@dataclass(frozen=True)
class Latency:
    """The durations of one forward pass, in seconds.

    Attributes:
        low: The lower quartile over several turns.
        median: The median.
        high: The upper quartile.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Summarises at least two durations."""
        return cls(*quantiles(seconds, n=4, method="inclusive"))

    def __str__(self) -> str:
        low, median, high = (_milliseconds(seconds) for seconds in (self.low, self.median, self.high))
        return f"{median} ms ({low} to {high})"


@dataclass(frozen=True)
class Measurement:
    """A network in numbers.

    Attributes:
        parameters: Number of parameters.
        bytes: Size of the file that ``torch.save`` writes for its ``state_dict``.
        flops: Floating-point operations of a forward pass for one sample, in matrix products and convolutions: a
            multiplication and an addition count as two. 0 if PyTorch cannot count them.
        latency: The duration of a forward pass, by batch size.
    """

    parameters: int
    bytes: int
    flops: int
    latency: Mapping[int, Latency]

    @classmethod
    def of(cls, module: nn.Module, example: Any, latency: Mapping[int, Latency]) -> "Measurement":
        """Measures a network, except for its latency."""
        parameters = sum(parameter.numel() for parameter in module.parameters())
        return cls(parameters, saved_bytes(module), flops(module, resized(example, 1)), latency)


def _milliseconds(seconds: float) -> str:
    """Three digits, or all digits before the point."""
    value = seconds * 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class _Counter(io.RawIOBase):
    """A file that only counts what is written to it."""

    def __init__(self) -> None:
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        size = memoryview(content).nbytes
        self.count += size
        return size


def saved_bytes(module: nn.Module) -> int:
    """The size of the file that ``torch.save`` writes for the ``state_dict`` of a network."""
    counter = _Counter()
    torch.save(module.state_dict(), cast(IO[bytes], counter))
    return counter.count


def flops(module: nn.Module, example: Any) -> int:
    """The floating-point operations of a forward pass, in matrix products and convolutions; 0 if unknown."""
    with torch.no_grad(), isolated(), FlopCounterMode(display=False) as counter:
        call(module, example)
    total: int = counter.get_total_flops()
    return total


def durations(modules: Sequence[nn.Module], example: Any, turns: int, seconds: float) -> list[list[float]]:
    """Times forward passes of several networks, which take turns, so that slow phases affect all of them.

    Args:
        modules: The networks, in evaluation mode.
        example: What they are called with.
        turns: The number of turns.
        seconds: How long one turn of one network takes, at least; a forward pass may take longer.

    Returns:
        For each network, the seconds of one forward pass in each turn.
    """
    timers = [_timer(module, example) for module in modules]
    times: list[list[float]] = [[] for _ in modules]
    with isolated():
        runs = [max(1, round(seconds / _warmed_up(timer))) for timer in timers]
        for _ in range(turns):
            for own, timer, number in zip(times, timers, runs, strict=True):
                own.append(timer.timeit(number).mean)
    return times


def _timer(module: nn.Module, example: Any) -> Timer:
    def run() -> None:
        with torch.inference_mode():
            call(module, example)

    step: Callable[[], None] = run
    # Timer waits for CUDA. By default it would use a single thread.
    return Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())


def _warmed_up(timer: Timer) -> float:
    """The seconds of one forward pass, after the first ones, which allocate memory."""
    timer.timeit(2)
    return float(timer.timeit(1).mean)

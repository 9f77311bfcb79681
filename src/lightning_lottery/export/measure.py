"""The size and the speed of a network on this machine."""

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import IO, Any, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import Self

from lightning_lottery.channels import call, isolated, samples_in
from lightning_lottery.export.onnx_network import OnnxNetwork
from lightning_lottery.export.sparse_linear import SparseLinear

# A ratio of latencies below this one may be noise.
FASTER = 1.05


@dataclass(frozen=True)
class Quartiles:
    """What a number was over several turns.

    Attributes:
        low: The lower quartile.
        median: The median.
        high: The upper quartile.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Self:
        """Summarises at least two numbers."""
        return cls(*quantiles(numbers, n=4, method="inclusive"))


@dataclass(frozen=True)
class Latency(Quartiles):
    """The duration of one forward pass, in seconds."""

    def __str__(self) -> str:
        low, median, high = (_milliseconds(seconds) for seconds in (self.low, self.median, self.high))
        return f"{median} ms ({low} to {high})"


@dataclass(frozen=True)
class Speedup(Quartiles):
    """How many times faster than the dense network a network is: the ratios of their durations within a turn."""

    @property
    def is_faster(self) -> bool:
        """Whether it is faster beyond noise: by 5 %, and in three of four turns."""
        return self.median >= FASTER and self.low > 1

    @property
    def is_slower(self) -> bool:
        """Whether it is slower beyond noise."""
        return self.median <= 1 / FASTER and self.high < 1

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


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


def stored_parameters(module: nn.Module) -> int:
    """The number of parameters of a network; of sparse layers and ONNX files, those that are stored."""
    if isinstance(module, OnnxNetwork):
        return module.numbers.parameters
    return sum(parameter.numel() for parameter in module.parameters())


def saved_bytes(module: nn.Module) -> int:
    """The size of the file that ``torch.save`` writes for the ``state_dict`` of a network, or of its ONNX file."""
    return module.path.stat().st_size if isinstance(module, OnnxNetwork) else pickled_bytes(module.state_dict())


def pickled_bytes(content: object) -> int:
    """The size of the file that ``torch.save`` writes."""
    counter = _Counter()
    torch.save(content, cast(IO[bytes], counter))
    return counter.count


def flops(module: nn.Module, example: Any) -> int:
    """The floating-point operations of a forward pass, in matrix products and convolutions; 0 if unknown.

    Of :class:`SparseLinear`, only the operations with weights that are not zero.
    """
    with torch.no_grad(), isolated(), FlopCounterMode(display=False) as counter:
        call(module, example)
    by_module, root = counter.get_flop_counts(), type(module).__name__
    total: int = counter.get_total_flops()
    for name, layer in module.named_modules():
        if isinstance(layer, SparseLinear):
            # Counted as if the matrix were dense.
            counted = sum(by_module.get(f"{root}.{name}" if name else root, {}).values())
            outputs, inputs = layer.stored_shape
            total -= counted - counted * layer.values.numel() // max(1, outputs * inputs)
    return total


def flops_per_sample(module: nn.Module, example: Any) -> int:
    """The floating-point operations of a forward pass for each sample of an example; see :func:`flops`."""
    return (
        module.numbers.flops
        if isinstance(module, OnnxNetwork)
        else flops(module, example) // (samples_in(example) or 1)
    )


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
    # Timer waits for CUDA. By default it would use a single thread.
    threads = torch.get_num_threads()
    timer = _timer_class()
    timers = [timer("step()", globals={"step": _step(module, example)}, num_threads=threads) for module in modules]
    times: list[list[float]] = [[] for _ in modules]
    with isolated():
        runs = [max(1, round(seconds / _warmed_up(timer))) for timer in timers]
        for _ in range(turns):
            for own, timer, number in zip(times, timers, runs, strict=True):
                own.append(timer.timeit(number).mean)
    return times


def _timer_class() -> Any:
    """PyTorch's ``Timer``. Its import looks for a compiler of CUDA, and logs that it has found no GPU."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from torch.utils.benchmark import Timer
    finally:
        logger.setLevel(level)
    return Timer


def _step(module: nn.Module, example: Any) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            call(module, example)

    return run


def _warmed_up(timer: Any) -> float:
    """The seconds of one forward pass, after the first ones, which allocate memory."""
    timer.timeit(2)
    return float(timer.timeit(1).mean)

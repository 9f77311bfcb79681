"""Time and memory for finding and masking the k smallest of N weights.

Run: python benchmarks/selection.py [--sizes 100000 10000000 100000000] [--repeats 5]

Removes 20 % of N normal weights by magnitude: with torch.nn.utils.prune.global_unstructured, and with
lightning_lottery.masks.prune_smallest into new masks and into existing masks (out=...). The systems take turns, so
that slow phases of the machine affect all of them. Ratios are computed within a turn. Memory is the peak of a
separate process, minus its memory with the weights in place.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lightning_lottery.masks import prune_smallest


class Holder(nn.Module):
    """A module with one parameter, as global_unstructured needs."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


def globally(weight: Tensor) -> Callable[[], None]:
    """One pruning with PyTorch's own tool, in a new module each time, since it changes the module."""

    def run() -> None:
        prune.global_unstructured([(holder, "weight")], pruning_method=prune.L1Unstructured, amount=0.2)

    holder = Holder(weight)
    return run


def systems(weight: Tensor) -> dict[str, Callable[[], object]]:
    """The systems to compare. Each can be called once."""
    k = round(0.2 * weight.numel())
    out = [torch.ones(weight.shape, dtype=torch.bool)]  # its memory is already mapped
    return {
        "one read of the weights, `weight.sum()`": weight.sum,
        "prune_smallest": lambda: prune_smallest([weight], None, k, magnitude=True),
        "prune_smallest(out=masks)": lambda: prune_smallest([weight], None, k, magnitude=True, out=out),
        "global_unstructured": globally(weight),
    }


def seconds(run: Callable[[], object]) -> float:
    """Times one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def peak_bytes(name: str, size: int) -> float:
    """Peak memory besides the weights, in bytes per weight, in a separate process."""
    command = [sys.executable, str(Path(__file__)), "--memory-of", name, "--sizes", str(size)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_kilobytes() -> int:
    """Peak resident memory of this process from /proc; getrusage would include the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure_memory(name: str, size: int) -> None:
    """Prints how much the peak memory of this process rises, in bytes per weight."""
    small = torch.randn(200_000)
    for run in systems(small).values():
        run()  # includes what libraries allocate once
    weight = torch.randn(size)
    k = round(0.2 * size)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_kilobytes()
    if name == "global_unstructured":
        globally(weight)()
    else:
        prune_smallest([weight], None, k, magnitude=True)
    print((peak_kilobytes() - before) * 1024 / size)


def main() -> None:
    """Runs all systems in turns and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**5, 10**7, 10**8])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        measure_memory(arguments.memory_of, arguments.sizes[0])
        return
    print("| weights | system | ms (median) | reads of the weights | times slower | bytes per weight |")
    print("|---|---|---|---|---|---|")
    for size in arguments.sizes:
        times: dict[str, list[float]] = {}
        weight = torch.randn(size, generator=torch.Generator().manual_seed(0))
        repeats = arguments.repeats * (20 if size < 10**6 else 1)
        compared = systems(weight)
        for turn in range(repeats + 1):
            compared["global_unstructured"] = globally(weight)  # a new one, since it changes its module
            for name, run in compared.items():
                taken = seconds(run)
                if turn:  # the first turn warms up
                    times.setdefault(name, []).append(taken)
        read, ours = list(times.values())[:2]
        for name, taken in times.items():
            reads = median(a / b for a, b in zip(taken, read, strict=True))
            slower = median(a / b for a, b in zip(taken, ours, strict=True))
            has_memory = name in ("prune_smallest", "global_unstructured") and size >= 10**7
            memory = f"{peak_bytes(name, size):.2f}" if has_memory else ""
            print(f"| {size:,} | {name} | {1000 * median(taken):.3f} | {reads:.1f} | {slower:.2f} | {memory} |")


if __name__ == "__main__":
    main()

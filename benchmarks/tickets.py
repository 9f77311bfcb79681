"""Size of ticket files, and time to save and load them, beside the dense safetensors file.

Run: taskset -c 1 python benchmarks/tickets.py [--weights 25000000] [--densities 0.5 0.2 0.05 0.01] [--repeats 7]

A linear network of that many weights, pruned at random positions: the masks that compress worst. Bounds are the
bytes of the surviving values plus the entropy of the masks. Saving includes waiting until the file is on the disk.
Loading is into the network, with weights from the disk ("cold": on Linux, the system's cache of the file is
emptied first) or from that cache ("warm"). Ticket files and dense files take turns; ratios are medians of the
ratios within a turn.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from math import log2
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_lottery import Ticket


def network(weights: int) -> nn.Module:
    """Five linear layers with about as many weights in all."""
    size = round((weights / 5) ** 0.5)
    return nn.Sequential(*(nn.Linear(size, size, bias=False) for _ in range(5)))


def pruned(module: nn.Module, density: float) -> Ticket:
    """A ticket of a network with survivors at random positions."""
    generator = torch.Generator().manual_seed(0)
    masks = {
        name: torch.rand(weight.shape, generator=generator) < density for name, weight in module.named_parameters()
    }
    return Ticket.from_masks(masks, module)


def entropy(ticket: Ticket) -> float:
    """The entropy of masks with these densities of layers, in bytes."""
    bits = 0.0
    for name, density in ticket.layer_densities().items():
        parts = [part for part in (density, 1 - density) if part > 0]
        bits -= ticket.masks[name].numel() * sum(part * log2(part) for part in parts)
    return bits / 8


def save_dense(module: nn.Module, path: Path) -> None:
    """Writes all weights, and waits until they are on the disk, as saving a ticket does."""
    save_file(module.state_dict(), path)
    sync(path)


def sync(path: Path, forget: bool = False) -> None:
    """Waits until a file is on the disk; if asked, the system then forgets what it has cached of it."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    if forget:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def seconds(run: Callable[[], object]) -> float:
    """Times one call."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def turn(module: nn.Module, ticket: Ticket, folder: Path) -> dict[str, tuple[float, float]]:
    """Seconds of the ticket file and of the dense file, by what is done with them."""
    ours, dense = folder / "ticket.safetensors", folder / "dense.safetensors"
    found = {"save": (seconds(lambda: ticket.save(ours)), seconds(lambda: save_dense(module, dense)))}
    for what in ("load, cold", "load, warm"):
        for path in (ours, dense):
            sync(path, forget=what == "load, cold" and hasattr(os, "posix_fadvise"))
        found[what] = (
            seconds(lambda: Ticket.load(ours).apply(module)),
            seconds(lambda: module.load_state_dict(load_file(dense))),
        )
    return found


def measure(weights: int, density: float, repeats: int, folder: Path) -> str:
    """One row of the table."""
    module = network(weights)
    ticket = pruned(module, density)
    times: dict[str, list[tuple[float, float]]] = {}
    for number in range(repeats + 1):
        for what, pair in turn(module, ticket, folder).items():
            if number:  # the first turn warms up
                times.setdefault(what, []).append(pair)
    size, dense = (file_size(folder / f"{name}.safetensors") for name in ("ticket", "dense"))
    bound = 4 * ticket.kept + entropy(ticket)
    cells = [f"{density:.0%}", f"{size / 1e6:.2f} MB", f"1/{dense / size:.1f}", f"{size / bound:.3f}"]
    for pairs in times.values():
        ours, other = (1000 * median(column) for column in zip(*pairs, strict=True))
        cells.append(f"{ours:.0f} against {other:.0f} ms: {median(a / b for a, b in pairs):.2f}")
    return f"| {' | '.join(cells)} |"


def file_size(path: Path) -> int:
    """Bytes of a file."""
    return path.stat().st_size


def main() -> None:
    """Measures all densities and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--weights", type=int, default=25_000_000)
    parser.add_argument("--densities", type=float, nargs="+", default=[0.5, 0.2, 0.05, 0.01])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--folder", help="On the disk to measure (default: the folder for temporary files).")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| density | ticket file | of the dense file | of the bound | save | load, cold | load, warm |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for density in arguments.densities:
            print(measure(arguments.weights, density, arguments.repeats, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

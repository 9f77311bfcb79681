"""What cheaper searches for tickets cost, and what that costs in accuracy.

Run: python benchmarks/search_cost.py [--seeds 0 1 2] [--ways full 20% three …] [--folder runs] [--data data]

The work: LeNet-300-100 on 55,000 images of Fashion-MNIST, batch 60, Adam with learning rate 1.2e-3. A whole
training has 5,000 steps, in 20 epochs of 250 batches. Every way of searching ends with tickets of 10.7 % and 3.5 %
of the weights that train fully. Their accuracy on the 10,000 test images after the last step is compared with that
of the dense training of the same seed. No training and no pruning uses the test images. The cost of a ticket is
what was trained to find it and to train it, in steps, in units of the dense training, which it includes.

The lengths 15 % and 37 % were chosen so that a ticket costs a quarter of the plain search, and the tolerance of
EarlyBird so that it costs about as much as search rounds of 20 %. That few prunings do well was seen with seeds 0
and 2, on these test images; seed 1 came afterwards.

Prints a Markdown table with means over seeds and their standard errors, and draws a figure. Every run keeps its
folder: the same command continues after an interruption, and several processes may train different seeds or ways.
Needs Fashion-MNIST: Debian's package dataset-fashion-mnist, or a download by torchvision.
"""

import argparse
import logging
import warnings
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import torch
from fashion import unpack_debian
from lightning.pytorch import seed_everything
from quiet import quiet_trainer

from lightning_lottery import EarlyBird, LotteryTicketCallback, Records, RoundRecord
from lightning_lottery.storage import Cost
from lightning_lottery.tickets import RoundId
from lightning_lottery.vision import Classifier, FashionMNIST, LeNet300100

STEPS, EPOCHS = 5000, 20
DENSITIES = (0.8**10, 0.8**15)  # of the tickets that are compared
FALLING = [0.8**number for number in range(1, 16)]  # 20 % fewer in each round


def search(length: str, **options: Any) -> dict[str, Any]:
    """Rounds of 20 % with short search rounds."""
    return {"densities": FALLING, "search": length, "full_rounds": [10, 15], **options}


def in_three(density: float, **options: Any) -> dict[str, Any]:
    """Three prunings down to a density, each of the same part of the survivors."""
    return {"densities": [density ** (number / 3) for number in (1, 2, 3)], **options}


@dataclass(frozen=True)
class Way:
    """A way of searching.

    Attributes:
        title: What it does, in words.
        arguments: Those of the callback: of one run for both tickets, or of one for each of them.
    """

    title: str
    arguments: list[dict[str, Any]]


WAYS = {
    "full": Way("20 % a round, all fully", [{"densities": FALLING}]),
    "20%": Way("20 % a round, search 20%", [search("20%")]),
    "10%": Way("20 % a round, search 10%", [search("10%")]),
    "early-bird": Way(
        "20 % a round, search until EarlyBird", [search("95%", stop=[EarlyBird(window=2, tolerance=0.09)])]
    ),
    "one-shot": Way("one-shot", [{"densities": [density]} for density in DENSITIES]),
    "one-shot-then-15%": Way(
        "to 33 % at once, then 20 % a round, search 15%",
        [{"densities": FALLING[4:], "search": "15%", "full_rounds": [6, 11]}],
    ),
    "three": Way("three prunings, all fully", [in_three(density) for density in DENSITIES]),
    "three-37%": Way("three prunings, search 37%", [in_three(density, search="37%") for density in DENSITIES]),
}


@dataclass(frozen=True)
class Point:
    """A ticket that one way of searching has found.

    Attributes:
        cost: What it took, in dense trainings.
        gain: Its test accuracy minus that of the dense network, in percentage points.
    """

    cost: float
    gain: float


def train(folder: Path, seed: int, data: FashionMNIST, arguments: dict[str, Any]) -> Records:
    """Trains one run, or takes it from its folder."""
    seed_everything(seed, verbose=False)
    model = Classifier(LeNet300100(), optimizer=partial(torch.optim.Adam, lr=1.2e-3, fused=True))
    lottery = LotteryTicketCallback(monitor="val_acc", mode="max", dirpath=folder, verbose=False, **arguments)
    trainer = quiet_trainer(
        EPOCHS, lottery, limit_train_batches=STEPS // EPOCHS, check_val_every_n_epoch=EPOCHS, accelerator="cpu"
    )
    # "val_acc" is the accuracy on the test images, once per training and after its last step. It decides nothing.
    train, test = data.train_dataloader(), data.test_dataloader()
    trainer.fit(model, train, test, ckpt_path=lottery.resume(trainer))
    return lottery.records


def points(folder: Path, seed: int, data: FashionMNIST, name: str) -> list[Point]:
    """The tickets of one way and seed, in the order of ``DENSITIES``."""
    runs = [
        train(folder / f"{name}_{number}_seed_{seed}", seed, data, arguments)
        for number, arguments in enumerate(WAYS[name].arguments)
    ]
    return [point(runs[number % len(runs)], density) for number, density in enumerate(DENSITIES)]


def point(records: Records, density: float) -> Point:
    """The ticket of a density in a run."""
    ticket = next(r for r in records["ticket"].values() if abs(r.density - density) < 1e-4)
    needed = [record for record in records if record.id == RoundId(0) or is_needed(record, ticket, records)]
    gain = ticket.metrics["val_acc"] - records[0].metrics["val_acc"]
    return Point(Cost.of(needed).trainings, 100 * gain)


def is_needed(record: RoundRecord, ticket: RoundRecord, records: Records) -> bool:
    """Whether a training was needed for a ticket: the rounds that found it, and its own."""
    if record is ticket:
        return True
    finds = record.id.is_search if "search" in records.branches() else record.id.is_ticket
    return finds and record.round < ticket.round


def table(found: dict[str, list[list[Point]]]) -> str:
    """A Markdown table: for each way and density the cost, also of the plain search, and the mean gain."""
    header = ["Way"]
    for density in DENSITIES:
        header += [f"Cost at {density:.1%}", f"Test accuracy at {density:.1%}"]
    rows = [header, ["---"] * len(header)]
    for name, by_density in found.items():
        cells = [WAYS[name].title]
        for number, column in enumerate(by_density):
            cost = mean(point.cost for point in column)
            plain = [point.cost for point in found.get("full", [[]] * len(DENSITIES))[number]]
            part = f" ({cost / mean(plain):.3f} of the plain search)" if plain and name != "full" else ""
            gain, error = summary([point.gain for point in column])
            cells += [f"{cost:.2f}{part}", f"{gain:+.2f}" + (f" ± {error:.2f}" if error else "")]
        rows.append(cells)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def summary(numbers: list[float]) -> tuple[float, float | None]:
    """Mean and standard error; ``None`` for a single number."""
    return mean(numbers), stdev(numbers) / sqrt(len(numbers)) if len(numbers) > 1 else None


def draw(found: dict[str, list[list[Point]]], path: str) -> None:
    """Draws accuracy against cost, one panel per density."""
    figure, panels = plt.subplots(1, len(DENSITIES), figsize=(11, 4.6), layout="constrained")
    for number, (panel, density) in enumerate(zip(panels, DENSITIES, strict=True)):
        colours = plt.get_cmap("tab10").colors
        for (name, by_density), colour, marker in zip(found.items(), colours, "osD^vPX*", strict=False):
            costs = [point.cost for point in by_density[number]]
            gain, error = summary([point.gain for point in by_density[number]])
            panel.errorbar(mean(costs), gain, error, fmt=marker, color=colour, capsize=3, label=WAYS[name].title)
        panel.axhline(0, color="0.5", linewidth=1, linestyle=":", label="dense network")
        panel.set_xlim(left=0)
        panel.set_title(f"{density:.1%} of the weights")
        panel.set_xlabel("cost of the ticket, in dense trainings")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("test accuracy minus dense, in points")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Trains everything that is missing, prints the table, and draws the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), metavar="WAY")
    parser.add_argument("--folder", type=Path, default=Path("search_cost"), help="of the runs")
    parser.add_argument("--data", type=Path, default=Path("data"), help="of torchvision's data sets")
    parser.add_argument("--figure", default="search_cost.png", help="the file to draw")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    unpack_debian(options.data)
    data = FashionMNIST(options.data)
    data.prepare_data()
    data.setup()
    found: dict[str, list[list[Point]]] = {}
    for name in options.ways:
        by_seed = [points(options.folder, seed, data, name) for seed in options.seeds]
        found[name] = [list(column) for column in zip(*by_seed, strict=True)]
        print(
            WAYS[name].title,
            *([f"{p.cost:.2f}: {p.gain:+.2f}" for p in column] for column in found[name]),
            flush=True,
        )
    print(f"\n{table(found)}")
    draw(found, options.figure)


if __name__ == "__main__":
    main()

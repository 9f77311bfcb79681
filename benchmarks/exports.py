"""What exports gain: size, operations, and speed on this machine, beside the dense network.

Run: taskset -c 1 python benchmarks/exports.py [--batch_sizes 1 60 1000] [--turns 11] [--cases lenet wide …]

LeNet-300-100 is trained on 4,000 digits and pruned in 20 rounds, down to 1 % of its weights; a wide MLP in one
round, to 5 %. Networks of torchvision, for images of 32 x 32 pixels, train a single step, and keep a part of the
channels of every group, at random, since the speed does not depend on which ones.

export.best tries the compact and the sparse network and both, at each batch size, and compares their outputs.
export.onnx writes the compact network, which onnxruntime runs. All take turns, with one thread; ratios are medians
of those within a turn. Sizes are those of the best form at the second batch size. Prints a Markdown table, and
draws a figure. Needs pip install 'lightning-lottery[demo,structured,onnx]'.
"""

import argparse
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torchvision
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from quiet import quiet_trainer
from structured import OneStep, ticket_of
from torch import Tensor, nn

from lightning_lottery import LotteryTicketCallback, Ticket, export
from lightning_lottery.vision import MLP, MNIST5000, Classifier, LeNet300100

# 20 % fewer in each round, but exactly 20, 5 and 1 % in three of them.
DENSITIES = sorted(
    {*(round(0.8**number, 3) for number in range(1, 20)), 0.2, 0.05, 0.01} - {0.21, 0.055}, reverse=True
)


@dataclass(frozen=True)
class Case:
    """A network with its ticket and inputs.

    Attributes:
        name: The network.
        kept: What the ticket keeps, in words.
        model: With the weights to export.
        ticket: The ticket.
        inputs: Samples along the first dimension.
    """

    name: str
    kept: str
    model: LightningModule
    ticket: Ticket
    inputs: Tensor


class TrainedWeights(Callback):
    """Keeps the trained weights of every round."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, Tensor]] = []

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copies the weights."""
        self.rounds.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})


def trained(
    network: nn.Module, name: str, all_densities: list[float], shown: list[float], epochs: int
) -> Iterator[Case]:
    """A network that was trained on digits and pruned, with the weights of some rounds."""
    seed_everything(0, verbose=False)
    model = Classifier(network, optimizer=partial(torch.optim.Adam, lr=0.0012, fused=True))
    data, weights = MNIST5000(batch_size=60), TrainedWeights()
    with tempfile.TemporaryDirectory() as folder:
        lottery = LotteryTicketCallback(densities=all_densities, dirpath=folder, verbose=False)
        quiet_trainer(epochs, lottery, weights).fit(model, datamodule=data)
        images, _ = next(iter(data.val_dataloader()))
        for density in shown:
            number = 1 + all_densities.index(density)
            model.load_state_dict(weights.rounds[number])
            yield Case(name, f"{density:.0%} of the weights", model, lottery.tickets[number], images[:60])


def structured(name: str, *densities: float) -> Iterator[Case]:
    """A network of torchvision without a part of its channels."""
    for density in densities:
        seed_everything(0, verbose=False)
        model, images = OneStep(getattr(torchvision.models, name)(weights=None)), torch.randn(8, 3, 32, 32)
        ticket = ticket_of(model, density, images)
        yield Case(name, f"{density:.0%} of the channels", model, ticket, images)


CASES = {
    "lenet": partial(trained, LeNet300100(), "LeNet-300-100", DENSITIES, [0.2, 0.05, 0.01], 5),
    "wide": partial(trained, MLP((784, 4096, 4096, 10)), "MLP 784-4096-4096-10", [0.05], [0.05], 1),
    "resnet18": partial(structured, "resnet18", 0.5, 0.3),
    "mobilenet_v2": partial(structured, "mobilenet_v2", 0.5),
}


@dataclass(frozen=True)
class Result:
    """The reports of a network, by batch size."""

    case: Case
    best: dict[int, export.ExportReport]
    onnx: export.ExportReport

    @classmethod
    def of(cls, case: Case, batch_sizes: list[int], turns: int) -> "Result":
        """Exports and measures a network."""
        best = {}
        for size in batch_sizes:
            _, best[size] = export.best(case.model, case.ticket, case.inputs, [size], turns)
            print(f"\n{case.name}, {case.kept}\n{best[size]}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            small = export.compact(case.model, case.ticket, case.inputs)
            made = export.onnx(small, None, case.inputs, Path(folder, "network.onnx"))
            onnx = export.ExportReport.measure(
                case.model, case.ticket, made, case.inputs, batch_sizes, turns, form="ONNX"
            )
        print(f"\n{onnx}", flush=True)
        return cls(case, best, onnx)

    def row(self) -> list[str]:
        """The cells of the table."""
        sizes = list(self.best)
        shown = self.best[sizes[min(1, len(sizes) - 1)]]
        dense, exported = shown.dense, shown.exported
        return [
            self.case.name,
            self.case.kept,
            f"{dense.parameters / 1e6:.2f} → {exported.parameters / 1e6:.3f} M",
            f"{exported.bytes / dense.bytes:.3f}",
            f"{exported.flops / dense.flops:.3f}",
            *(f"{report.speedup[size].median:.1f} x, {report.kept}" for size, report in self.best.items()),
            ", ".join(f"{self.onnx.speedup[size].median:.1f} x" for size in sizes),
        ]


def draw(results: list[Result], path: str) -> None:
    """Draws the speed of the best form and of the ONNX file, one panel per batch size."""
    sizes = list(results[0].best)
    names = [f"{result.case.name}\n{result.case.kept}" for result in results]
    figure, panels = plt.subplots(
        1, len(sizes), figsize=(10, 1.2 + 0.62 * len(results)), sharey=True, squeeze=False
    )
    for panel, size in zip(panels[0], sizes, strict=True):
        for offset, label, colour, ratios in (
            (
                -0.19,
                "best of dense, compact, sparse, both",
                "#1f5fa8",
                [r.best[size].speedup[size] for r in results],
            ),
            (0.19, "ONNX, compact", "#e0a030", [r.onnx.speedup[size] for r in results]),
        ):
            places = [place + offset for place in range(len(results))]
            medians = [ratio.median for ratio in ratios]
            spread = [[r.median - r.low for r in ratios], [r.high - r.median for r in ratios]]
            panel.barh(places, medians, 0.36, color=colour, label=label, xerr=spread, error_kw={"lw": 1})
            for place, ratio in zip(places, ratios, strict=True):
                panel.annotate(
                    f"{ratio.median:.1f}", (ratio.high, place), (4, 0), textcoords="offset points", va="center"
                )
        panel.axvline(1, color="black", lw=1)
        panel.set_title(f"batch size {size}")
        panel.set_xlabel("times as fast as dense")
        panel.set_xlim(0, 1.18 * panel.get_xlim()[1])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_yticks(range(len(results)), names)
    panels[0, 0].invert_yaxis()
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measures all networks, prints a table, and draws the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 60, 1000])
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--figure", default="exports.png", help="the file to draw")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    results = [
        Result.of(case, options.batch_sizes, options.turns) for name in options.cases for case in CASES[name]()
    ]
    header = ["Network", "Kept", "Parameters", "Bytes", "FLOPs", *(f"Batch size {n}" for n in options.batch_sizes)]
    print(f"\n| {' | '.join([*header, 'ONNX'])} |\n|{'---|' * (len(header) + 1)}")
    for result in results:
        print(f"| {' | '.join(result.row())} |")
    draw(results, options.figure)


if __name__ == "__main__":
    main()

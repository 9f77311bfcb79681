"""The same work with different libraries: speed, memory, and whether the algorithm is exact.

Run: python benchmarks/side_by_side.py [--repeats 3] [--default-adam] [--root data] [--figure side_by_side.png]

The work: LeNet-300-100 on Fashion-MNIST, batch 60, Adam with learning rate 1.2e-3 (in all systems fused=True,
since PyTorch's default is slow on a CPU where many gradients are zero), a dense training and three rounds that
each remove 20 % of the surviving weights, two epochs per training, with a test on 10,000 images after each epoch.
The systems take turns, each in a separate process, so that slow phases of the machine affect all of them. The
table shows medians over the turns, and ratios computed within a turn. Seconds include all trainings, but not
imports and reading files. Whether counts and rewinding are exact is measured at the first batch of every round.
Needs Fashion-MNIST: Debian's package dataset-fashion-mnist, or a download by torchvision.
"""

import argparse
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from fashion import unpack_debian
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelPruning
from quiet import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from lightning_lottery import LotteryTicketCallback
from lightning_lottery.vision import Classifier, LeNet300100, TensorLoader

EPOCHS, ROUNDS, AMOUNT, BATCH, LR = 2, 3, 0.2, 60, 1.2e-3
DEFAULT_ADAM = "SIDE_BY_SIDE_DEFAULT_ADAM"


class Observer:
    """Checks at the start of every training whether counts and rewinding follow the algorithm."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.initial = self.values()
        self.kept: list[int] = []
        self.weights_rewound: list[bool] = []
        self.biases_rewound: list[bool] = []
        self.is_fresh: list[bool] = []

    def values(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of every layer, as used in the forward pass."""
        layers = [layer for layer in self.network.modules() if isinstance(layer, nn.Linear)]
        # prune.* keeps the parameter under another name, separate from the mask
        masks = [getattr(layer, "weight_mask", 1) for layer in layers]
        weights = [getattr(layer, "weight_orig", layer.weight) for layer in layers]
        return [
            ((weight * mask).detach().clone(), layer.bias.detach().clone())
            for layer, weight, mask in zip(layers, weights, masks, strict=True)
        ]

    def check(self, optimizer: torch.optim.Optimizer) -> None:
        """Compares survivors with their initial values, and counts them."""
        values = self.values()
        self.kept.append(sum(int(weight.count_nonzero()) for weight, _ in values))
        pairs = list(zip(values, self.initial, strict=True))
        survivors = [(weight, torch.where(weight == 0, 0.0, first)) for (weight, _), (first, _) in pairs]
        self.weights_rewound.append(all(torch.equal(*both) for both in survivors))
        self.biases_rewound.append(all(torch.equal(bias, first) for (_, bias), (_, first) in pairs))
        moments = [value for state in optimizer.state.values() for value in state.values()]
        self.is_fresh.append(not any(bool(value.any()) for value in moments if isinstance(value, Tensor)))

    def result(self) -> dict[str, Any]:
        """The results of the checks."""
        return vars(self) | {"network": None, "initial": None}


class Observe(Callback):
    """Calls an observer at the first batch of every training."""

    def __init__(self, observer: Observer, epochs: int | None = None) -> None:
        self.observer, self.epochs = observer, epochs

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Checks at the first batch of a fit, or of every given number of epochs of one fit."""
        epoch = trainer.current_epoch
        if batch_idx == 0 and (epoch == 0 if self.epochs is None else epoch % self.epochs == 0):
            self.observer.check(trainer.optimizers[0])


def splits(root: Path) -> tuple[datasets.FashionMNIST, datasets.FashionMNIST]:
    """Training and test images from torchvision."""
    unpack_debian(root)
    train, test = (
        datasets.FashionMNIST(root, train, transforms.ToTensor(), download=True) for train in (True, False)
    )
    return train, test


def in_memory(dataset: datasets.FashionMNIST) -> tuple[Tensor, Tensor]:
    """All images with the values of ToTensor."""
    return dataset.data.unsqueeze(1).float() / 255, dataset.targets


def torchvision_loaders(root: Path) -> list[Any]:
    """Data loaders as most people write them."""
    train, test = splits(root)
    return [DataLoader(train, BATCH, shuffle=True), DataLoader(test, 1000)]


def tensor_loaders(root: Path) -> list[Any]:
    """Loaders over tensors on the training device."""
    train, test = map(in_memory, splits(root))
    return [TensorLoader(*train, BATCH, shuffle=True), TensorLoader(*test, 1000)]


def adam(parameters: Any) -> torch.optim.Optimizer:
    """The optimizer of all systems."""
    return torch.optim.Adam(parameters, lr=LR, fused=not os.environ.get(DEFAULT_ADAM))


def loop(root: Path) -> tuple[float, dict[str, Any]]:
    """A loop in plain PyTorch, as an expert writes it."""
    (images, labels), (test_images, test_labels) = map(in_memory, splits(root))
    started = time.perf_counter()
    network = LeNet300100()
    observer = Observer(network)
    initial = {name: value.clone() for name, value in network.state_dict().items()}
    weights = [layer.weight for layer in network.modules() if isinstance(layer, nn.Linear)]
    masks = [torch.ones_like(weight) for weight in weights]
    for number in range(ROUNDS + 1):
        if number:
            alive = torch.cat([w.detach().abs()[m.bool()] for w, m in zip(weights, masks, strict=True)])
            threshold = alive.kthvalue(round(AMOUNT * alive.numel())).values
            masks = [m * (w.detach().abs() > threshold) for w, m in zip(weights, masks, strict=True)]
            network.load_state_dict(initial)
            with torch.no_grad():
                torch._foreach_mul_(weights, masks)
        optimizer = adam(network.parameters())
        observer.check(optimizer)
        for _ in range(EPOCHS):
            network.train()
            for index in torch.randperm(len(images)).split(BATCH):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
                if number:
                    torch._foreach_mul_([weight.grad for weight in weights], masks)
                optimizer.step()
            network.eval()
            with torch.no_grad():
                right = sum(
                    int((network(some).argmax(1) == wanted).sum())
                    for some, wanted in zip(test_images.split(1000), test_labels.split(1000), strict=True)
                )
            right / len(test_labels)
    return time.perf_counter() - started, observer.result()


def plain_lightning(root: Path, loaders: Callable[[Path], list[Any]]) -> tuple[float, dict[str, Any]]:
    """The same number of trainings of the dense network, to measure the cost of a fit itself."""
    train, test = loaders(root)
    started = time.perf_counter()
    for _ in range(ROUNDS + 1):
        seed_everything(0, verbose=False)
        quiet_trainer(EPOCHS).fit(Classifier(LeNet300100(), adam), train, test)
    return time.perf_counter() - started, {}


def ours(root: Path, loaders: Callable[[Path], list[Any]]) -> tuple[float, dict[str, Any]]:
    """LotteryTicketCallback with its records and tickets on disk."""
    train, test = loaders(root)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        model = Classifier(LeNet300100(), adam)
        observer = Observer(model.network)
        lottery = LotteryTicketCallback(
            rounds=ROUNDS, amount=AMOUNT, monitor="val_acc", mode="max", dirpath=folder, verbose=False
        )
        quiet_trainer(EPOCHS, lottery, Observe(observer)).fit(model, train, test)
        return time.perf_counter() - started, observer.result()


def model_pruning(root: Path) -> tuple[float, dict[str, Any]]:
    """Lightning's ModelPruning, as close to the algorithm as it gets: one fit, pruned after every second epoch."""
    train, test = torchvision_loaders(root)
    started = time.perf_counter()
    model = Classifier(LeNet300100(), adam)
    observer = Observer(model.network)
    pruning = ModelPruning(
        "l1_unstructured",
        parameters_to_prune=[(layer, "weight") for layer in model.modules() if isinstance(layer, nn.Linear)],
        use_global_unstructured=True,
        amount=AMOUNT,
        apply_pruning=lambda epoch: epoch % EPOCHS == EPOCHS - 1 and epoch < EPOCHS * ROUNDS,
        use_lottery_ticket_hypothesis=lambda epoch: epoch % EPOCHS == EPOCHS - 1 and epoch < EPOCHS * ROUNDS,
    )
    quiet_trainer(EPOCHS * (ROUNDS + 1), pruning, Observe(observer, EPOCHS)).fit(model, train, test)
    return time.perf_counter() - started, observer.result()


def fasterai(root: Path) -> tuple[float, dict[str, Any]]:
    """The SparsifyCallback of fasterai with its lottery-ticket option: one fit, pruned after every round."""
    from fastai.callback.core import Callback as FastaiCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import OptimWrapper
    from fasterai.core.schedule import Schedule
    from fasterai.sparse.all import SparsifyCallback, large_final

    def part(start: float, end: float, position: float) -> float:
        # It rounds the position to a thousandth, so add a little, to keep the reset after the last test.
        number = int((ROUNDS + 1) * max(0.0, position - 0.0006))
        return (1 - (1 - AMOUNT) ** number) / (1 - (1 - AMOUNT) ** ROUNDS)

    class Look(FastaiCallback):  # type: ignore[misc]
        order = 1000  # after the reset
        seen = 0.0

        def after_step(self) -> None:
            if self.seen != sparsify.current_sparsity:
                self.seen = sparsify.current_sparsity
                observer.check(self.learn.opt.opt)

    dataloaders = DataLoaders(*torchvision_loaders(root))
    started = time.perf_counter()
    network = LeNet300100()
    observer = Observer(network)
    observer.check(adam(network.parameters()))
    sparsify = SparsifyCallback(
        1 - (1 - AMOUNT) ** ROUNDS, "weight", "global", large_final, Schedule(part), lth=True, layer_type=nn.Linear
    )
    learner = Learner(
        dataloaders,
        network,
        nn.CrossEntropyLoss(),
        opt_func=partial(OptimWrapper, opt=partial(torch.optim.Adam, fused=not os.environ.get(DEFAULT_ADAM))),
        lr=LR,
        metrics=accuracy,
        cbs=[sparsify, Look()],
    )
    with learner.no_bar(), learner.no_logging(), redirect_stdout(io.StringIO()):
        learner.fit(EPOCHS * (ROUNDS + 1))
    return time.perf_counter() - started, observer.result()


SYSTEMS: dict[str, Callable[[Path], tuple[float, dict[str, Any]]]] = {
    "PyTorch loop, tensors in memory": loop,
    "LotteryTicketCallback, TensorLoader": partial(ours, loaders=tensor_loaders),
    "LotteryTicketCallback, torchvision data": partial(ours, loaders=torchvision_loaders),
    "dense Lightning trainings, TensorLoader": partial(plain_lightning, loaders=tensor_loaders),
    "dense Lightning trainings, torchvision data": partial(plain_lightning, loaders=torchvision_loaders),
    "Lightning's ModelPruning, torchvision data": model_pruning,
    **({"fasterai, torchvision data": fasterai} if find_spec("fasterai") else {}),
}


def peak_megabytes() -> float:
    """Peak resident memory of this process from /proc; getrusage would include the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(name: str, root: Path) -> None:
    """Runs one system in this process and prints the measurements."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    seconds, seen = SYSTEMS[name](root)
    print(json.dumps({"seconds": seconds, "peak": peak_megabytes(), **seen}))


def take_turns(repeats: int, root: Path) -> dict[str, list[dict[str, Any]]]:
    """Runs all systems in turns, each in a separate process."""
    splits(root)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in SYSTEMS}
    for _ in range(repeats):
        for name in SYSTEMS:
            command = [sys.executable, str(Path(__file__).absolute()), "--system", name, "--root", str(root)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{name} does not run here.", file=sys.stderr)
                continue
            results[name].append(json.loads(done.stdout.splitlines()[-1]))
    return {name: runs for name, runs in results.items() if len(runs) == repeats}


def verdicts(run: dict[str, Any]) -> tuple[str, str]:
    """Whether counts are exact, and whether survivors and optimizers were rewound in rounds 1, 2 and 3."""
    if "kept" not in run:
        return "-", "-"
    expected = [sum(a * b for a, b in ((784, 300), (300, 100), (100, 10)))]
    for _ in range(ROUNDS):
        expected.append(expected[-1] - round(AMOUNT * expected[-1]))
    counts = "yes" if run["kept"] == expected else "no: " + ", ".join(f"{kept:,}" for kept in run["kept"])
    words = {True: "yes", False: "no"}
    parts = ("weights_rewound", "biases_rewound", "is_fresh")
    return counts, "; ".join("/".join(words[found] for found in run[part][1:]) for part in parts)


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """A Markdown table with ratios to the first two systems."""
    steps = (ROUNDS + 1) * EPOCHS * 60_000 // BATCH
    first, second = list(SYSTEMS)[:2]
    lines = [
        "| system | s | ms per step | times the loop | times ours | peak MB | exact counts | back at "
        "initialisation in rounds 1/2/3: weights; biases; optimizer |",
        "|---|---|---|---|---|---|---|---|",
    ]
    seconds = {name: [run["seconds"] for run in runs] for name, runs in results.items()}

    def times(name: str, other: str) -> str:
        return f"{median(a / b for a, b in zip(seconds[name], seconds[other], strict=True)):.2f}"

    for name, runs in results.items():
        taken = median(seconds[name])
        counts, rewound = verdicts(runs[0])
        lines.append(
            f"| {name} | {taken:.1f} | {1000 * taken / steps:.3f} | {times(name, first)} | "
            f"{times(name, second)} | {median(run['peak'] for run in runs):.0f} | {counts} | {rewound} |"
        )
    return "\n".join(lines)


def draw(results: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draws horizontal bars: milliseconds per step, medians of the turns."""
    from matplotlib.figure import Figure

    steps = (ROUNDS + 1) * EPOCHS * 60_000 // BATCH
    names = list(results)
    typical = [1000 * median(run["seconds"] for run in runs) / steps for runs in results.values()]
    figure = Figure(figsize=(9, 0.6 * len(names) + 1.2), layout="constrained")
    axes = figure.subplots()
    colours = ["#0072B2" if "LotteryTicket" in name else "#999999" for name in names]
    bars = axes.barh(names, typical, color=colours)
    axes.bar_label(bars, [f"{value:.2f}" for value in typical], padding=4)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.12 * max(typical))
    axes.set_xlabel("milliseconds per step, including pruning, testing and startup")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("LeNet-300-100 on Fashion-MNIST: a dense training and three rounds", loc="left", fontsize=11)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Takes turns, prints a Markdown table and draws a figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--root", type=Path, default=Path("data"))
    parser.add_argument("--figure", type=Path, default=Path("side_by_side.png"))
    parser.add_argument("--default-adam", action="store_true", help="PyTorch's default Adam, without fused=True")
    parser.add_argument("--system", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.system:
        measure(arguments.system, arguments.root)
        return
    if arguments.default_adam:
        os.environ[DEFAULT_ADAM] = "1"  # also for the processes of the systems
    results = take_turns(arguments.repeats, arguments.root)
    print(table(results))
    draw(results, arguments.figure)


if __name__ == "__main__":
    main()

"""Networks without half or more of their channels: size, operations, and speed on this machine.

Run: taskset -c 1 python benchmarks/structured.py [--size 224] [--turns 5] [--networks resnet18 …]

A ticket of CoupledChannels keeps a fraction of the channels of every group, at random, since the speed does not
depend on which ones. export.compact removes the others, and compares the outputs. Dense and compact networks take
turns, with one thread, at batch sizes 1 and 32. The table shows ratios: sizes and operations, and medians of the
ratios of latencies within a turn. Needs pip install 'lightning-lottery[structured]'.
"""

import argparse
import logging
import tempfile
import warnings

import torch
import torchvision
from lightning.pytorch import LightningModule, seed_everything
from quiet import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_lottery import CoupledChannels, Layerwise, LotteryTicketCallback, Random, Ticket
from lightning_lottery.export import ExportReport, compact

CASES = [("resnet18", 0.5), ("resnet18", 0.3), ("mobilenet_v2", 0.5), ("mobilenet_v2", 0.3), ("vgg11_bn", 0.5)]


class OneStep(LightningModule):
    """Trains a single step, after which its normalisations have statistics."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def ticket_of(model: LightningModule, density: float, images: Tensor) -> Ticket:
    """A ticket that keeps a fraction of the channels of every group, whose network has trained one step."""
    with tempfile.TemporaryDirectory() as folder:
        lottery = LotteryTicketCallback(
            densities=[density],
            criterion=Random(),
            scope=Layerwise(),
            pattern=CoupledChannels(),
            prune_at_init=True,
            dirpath=folder,
            verbose=False,
        )
        trainer = quiet_trainer(1, lottery)
        trainer.fit(model, DataLoader(TensorDataset(images[:2]), batch_size=2))
        return lottery.tickets[1]


def row(name: str, density: float, options: argparse.Namespace) -> list[str]:
    """Measures one network."""
    seed_everything(0, verbose=False)
    model = OneStep(getattr(torchvision.models, name)(weights=None))
    images = torch.randn(2, 3, options.size, options.size)
    ticket = ticket_of(model, density, images)
    small = compact(model, ticket, images)
    report = ExportReport.measure(model, ticket, small, images, batch_sizes=(1, 32), turns=options.turns)
    print(f"\n{name}, {density:.0%} of the channels, density {ticket.density:.3f}\n{report}", flush=True)
    dense, exported = report.dense, report.exported
    return [
        name,
        f"{density:.0%}",
        f"{dense.parameters / 1e6:.1f} → {exported.parameters / 1e6:.1f} M",
        f"{exported.bytes / dense.bytes:.2f}",
        f"{exported.flops / dense.flops:.2f}",
        *(f"{report.speedup[size].median:.1f} x" for size in (1, 32)),
        f"{report.difference:.0e}",
    ]


def main() -> None:
    """Measures all networks, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--turns", type=int, default=5, help="number of turns")
    parser.add_argument("--networks", nargs="+", default=[name for name, _ in CASES], help="names of networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    rows = [row(name, density, options) for name, density in CASES if name in options.networks]
    print("\n| Network | Channels | Parameters | Bytes | FLOPs | Batch size 1 | Batch size 32 | Difference |")
    print("|---|---|---|---|---|---|---|---|")
    for cells in rows:
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

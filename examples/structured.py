"""Makes resnet18 smaller and faster: whole channels are removed, physically.

Run: python examples/structured.py

Trains torchvision's resnet18 on 4,000 handwritten digits, resized to 32 x 32. Each round removes channels with all
that depends on them, and trains on with the learning-rate schedule from its start. The result is an ordinary,
smaller resnet18. Needs pip install 'lightning-lottery[demo,structured]'.
"""

import argparse
import logging
import warnings
from functools import partial
from statistics import mean, stdev

import torch
import torchvision
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from lightning_lottery import CoupledChannels, LearningRate, LotteryTicketCallback
from lightning_lottery.export import ExportReport, compact
from lightning_lottery.vision import MNIST5000, Classifier


class Resized(nn.Module):
    """resnet18 for grey images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = torchvision.models.resnet18(num_classes=10)

    def forward(self, images: Tensor) -> Tensor:
        resized = nn.functional.interpolate(images.view(-1, 1, 28, 28), size=32, mode="bilinear")
        logits: Tensor = self.resnet(resized.expand(-1, 3, -1, -1))
        return logits


class Experiment:
    """A search, the export of its last ticket, and their accuracies.

    Args:
        options: The arguments of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data = options, MNIST5000(batch_size=100)

    def trainer(self, *callbacks: Callback) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        return Trainer(max_epochs=self.options.epochs, callbacks=list(callbacks), logger=False, devices=1, **quiet)

    def run(self, seed: int) -> tuple[dict[str, float], ExportReport]:
        seed_everything(seed, verbose=False)
        model = Classifier(
            Resized(),
            optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
            scheduler=partial(CosineAnnealingLR, T_max=self.options.epochs),
        )
        lottery = LotteryTicketCallback(
            densities=self.options.densities,
            pattern=CoupledChannels(),
            rewind=LearningRate(),
            monitor="val_acc",
            mode="max",
            dirpath=f"lottery_structured/seed_{seed}",
            overwrite=True,
        )
        self.trainer(lottery).fit(model, datamodule=self.data)

        ticket = lottery.tickets[len(self.options.densities)]
        images, _ = next(iter(self.data.val_dataloader()))
        small = compact(model, ticket, images)
        (result,) = self.trainer().validate(small, datamodule=self.data, verbose=False)
        dense, last = (lottery.records[number].metrics["val_acc"] for number in (0, -1))
        accuracies = {"dense": dense, "last ticket": last, "exported": result["val_acc"]}
        return accuracies, ExportReport.measure(model, ticket, small, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3, help="epochs per round")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.7, 0.5], help="channels of each round")
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    found = [Experiment(options).run(seed) for seed in range(options.seeds)]
    print(f"\nThe export of the last seed:\n\n{found[-1][1]}")
    print(f"\nAccuracy on 1,000 held-out digits, {len(found)} seeds:")
    for name in found[0][0]:
        values = [100 * accuracies[name] for accuracies, _ in found]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        print(f"  {name:12s} {mean(values):.2f}{spread} %")


if __name__ == "__main__":
    main()

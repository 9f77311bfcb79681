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

import torch
import torchvision
from lightning.pytorch import Trainer, seed_everything
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3, help="epochs per round")
    parser.add_argument("--densities", type=float, nargs="+", default=[0.7, 0.5], help="channels of each round")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    seed_everything(0, verbose=False)
    model = Classifier(
        Resized(),
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
        scheduler=partial(CosineAnnealingLR, T_max=options.epochs),
    )
    data = MNIST5000(batch_size=100)
    lottery = LotteryTicketCallback(
        densities=options.densities,
        pattern=CoupledChannels(),
        rewind=LearningRate(),
        monitor="val_acc",
        mode="max",
        dirpath="lottery_structured",
        overwrite=True,
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = Trainer(max_epochs=options.epochs, callbacks=[lottery], logger=False, devices=1, **quiet)
    trainer.fit(model, datamodule=data)

    ticket = lottery.tickets[len(options.densities)]
    images, _ = next(iter(data.val_dataloader()))
    small = compact(model, ticket, images)
    (result,) = Trainer(logger=False, devices=1, **quiet).validate(small, datamodule=data, verbose=False)
    torch.set_num_threads(1)
    print()
    print(ExportReport.measure(model, ticket, small, images))
    dense, last = (lottery.records[number].metrics["val_acc"] for number in (0, -1))
    accuracies = f"dense {dense:.1%}, last ticket {last:.1%}, exported {result['val_acc']:.1%}"
    print(f"\nAccuracy on 1,000 held-out digits: {accuracies}")


if __name__ == "__main__":
    main()

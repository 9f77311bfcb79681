"""Trains a ticket that was found on Fashion-MNIST on handwritten digits.

Run: python examples/transfer.py

Searches with LeNet-300-100 on 55,000 images of clothes, and carries the ticket over to a network that learns
digits from 4,000 images. Beside it train the dense network, and a ticket with as many weights at shuffled
positions. Needs pip install 'lightning-lottery[demo]'. Fashion-MNIST is downloaded to data/ if it is not there.
"""

import argparse
import logging
import warnings
from functools import partial
from statistics import mean, stdev

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from lightning_lottery import LotteryTicketCallback, ShuffleMask, Ticket, TicketCallback
from lightning_lottery.vision import MNIST5000, Classifier, FashionMNIST, LeNet300100


class Experiment:
    """A search on clothes, and trainings on digits.

    Args:
        options: The arguments of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def model(self) -> Classifier:
        if self.options.adam:
            return Classifier(LeNet300100(), optimizer=partial(torch.optim.Adam, lr=0.0012, fused=True))
        return Classifier(LeNet300100())  # SGD with learning rate 0.1

    def trainer(self, epochs: int, *callbacks: Callback) -> Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        return Trainer(max_epochs=epochs, callbacks=list(callbacks), logger=False, devices=1, **quiet)

    def search(self, seed: int) -> Ticket:
        """Finds a ticket on clothes: each round removes half of the weights."""
        seed_everything(seed, verbose=False)
        rounds, folder = self.options.rounds, f"lottery_transfer/seed_{seed}"
        lottery = LotteryTicketCallback(rounds=rounds, amount=0.5, dirpath=folder, overwrite=True, verbose=False)
        trainer = self.trainer(self.options.epochs[0], lottery)
        trainer.fit(self.model(), datamodule=FashionMNIST(self.options.root))
        return lottery.tickets[rounds]

    def accuracy(self, seed: int, ticket: Ticket | None) -> float:
        """Trains on digits, with a ticket or dense, and returns the accuracy on 1,000 held-out images."""
        seed_everything(seed, verbose=False)
        callbacks = [] if ticket is None else [TicketCallback(ticket, verbose=False)]
        trainer = self.trainer(self.options.epochs[1], *callbacks)
        trainer.fit(self.model(), datamodule=MNIST5000())
        return float(trainer.callback_metrics["val_acc"])

    def compare(self, seed: int) -> dict[str, float]:
        """The accuracies on digits of one seed, by what was trained."""
        found = self.search(seed)
        seed += 1000  # other initial values and another order of data than in the search
        seed_everything(seed, verbose=False)
        model = self.model()
        carried = found.transfer(model)
        print(carried)
        tickets = {
            "dense": None,
            "ticket": carried.ticket,
            "its masks, new values": found.transfer(model, weights="model").ticket,
            "its masks and signs, new magnitudes": found.transfer(model, weights="signs").ticket,
            "shuffled masks, new values": ShuffleMask().ticket(
                carried.ticket, Ticket.from_model(model), model, seed
            ),
        }
        return {name: self.accuracy(seed, ticket) for name, ticket in tickets.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of torchvision's data sets")
    parser.add_argument("--seeds", type=int, default=3, help="number of repetitions")
    parser.add_argument("--rounds", type=int, default=5, help="number of prunings; each removes half")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 10), help="per round on clothes, and on digits")
    parser.add_argument("--adam", action="store_true", help="train with Adam instead of SGD")
    experiment = Experiment(parser.parse_args())
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    runs = [experiment.compare(seed) for seed in range(experiment.options.seeds)]
    print(f"\nAccuracy on 1,000 held-out digits, {len(runs)} seeds:")
    for name in runs[0]:
        values = [100 * run[name] for run in runs]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        print(f"  {name:36s} {mean(values):.2f}{spread} %")


if __name__ == "__main__":
    main()

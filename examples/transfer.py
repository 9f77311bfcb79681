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


def trainer_for(epochs: int, *callbacks: Callback) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    return Trainer(max_epochs=epochs, callbacks=list(callbacks), logger=False, devices=1, **quiet)


def new_model() -> Classifier:
    return Classifier(LeNet300100(), optimizer=partial(torch.optim.Adam, lr=0.0012, fused=True))


def search(seed: int, root: str, epochs: int, rounds: int) -> Ticket:
    """Finds a ticket on clothes: each round removes half of the weights."""
    seed_everything(seed, verbose=False)
    lottery = LotteryTicketCallback(
        rounds=rounds, amount=0.5, dirpath=f"lottery_transfer/seed_{seed}", overwrite=True, verbose=False
    )
    trainer_for(epochs, lottery).fit(new_model(), datamodule=FashionMNIST(root))
    return lottery.tickets[rounds]


def accuracy(seed: int, ticket: Ticket | None, epochs: int) -> float:
    """Trains on digits, with a ticket or dense, and returns the accuracy on 1,000 held-out images."""
    seed_everything(seed, verbose=False)
    callbacks = [] if ticket is None else [TicketCallback(ticket, verbose=False)]
    trainer = trainer_for(epochs, *callbacks)
    trainer.fit(new_model(), datamodule=MNIST5000())
    return float(trainer.callback_metrics["val_acc"])


def compare(seed: int, found: Ticket, epochs: int) -> dict[str, float]:
    """The accuracies on digits of one seed, by what was trained."""
    seed_everything(seed + 1000, verbose=False)
    model = new_model()  # with other initial values than those of the search
    made = found.transfer(model)
    print(f"seed {seed}: {made}")
    shuffled = ShuffleMask().ticket(made.ticket, Ticket.from_model(model), model, seed)
    tickets = {
        "dense": None,
        "ticket": made.ticket,
        "its masks, new values": found.transfer(model, weights="model").ticket,
        "its masks and signs, new magnitudes": found.transfer(model, weights="signs").ticket,
        "shuffled masks, new values": shuffled,
    }
    return {name: accuracy(seed + 1000, ticket, epochs) for name, ticket in tickets.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of torchvision's data sets")
    parser.add_argument("--seeds", type=int, default=5, help="number of repetitions")
    parser.add_argument("--rounds", type=int, default=5, help="number of prunings; each removes half")
    parser.add_argument("--epochs", type=int, nargs=2, default=(2, 10), help="per round on clothes, and on digits")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    runs = []
    for seed in range(options.seeds):
        found = search(seed, options.root, options.epochs[0], options.rounds)
        runs.append(compare(seed, found, options.epochs[1]))
    print(f"\nDensity {found.density:.4f}. Accuracy on 1,000 held-out digits, {options.seeds} seeds:")
    for name in runs[0]:
        values = [100 * run[name] for run in runs]
        spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
        print(f"  {name:36s} {mean(values):.2f}{spread} %")


if __name__ == "__main__":
    main()

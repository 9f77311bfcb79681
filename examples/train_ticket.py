"""Trains a saved ticket, with its pruned weights held at zero.

Run: python examples/own_model.py, which saves a ticket; then python examples/train_ticket.py

In a clone, pip install -e '.[demo]' installs what it needs.
"""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from own_model import Digits, loaders

from lightning_lottery import Ticket, TicketCallback


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ticket", nargs="?", default="digits_ticket.safetensors", help="a ticket of own_model.py")
    path = parser.parse_args().ticket
    if not Path(path).is_file():
        parser.error(f"{path} does not exist. Run examples/own_model.py first, which writes it.")

    seed_everything(1)
    model = Digits()
    train, val = loaders()
    # The callback sets the starting values before the first step, and keeps pruned weights at zero.
    trainer = Trainer(max_epochs=6, callbacks=[TicketCallback(path)], logger=False)
    trainer.fit(model, train, val)
    (result,) = trainer.validate(model, val, verbose=False)

    # A smaller file for the trained weights: the ticket with other values.
    trained = Ticket.load(path).with_weights(model)
    trained.save("digits_trained.safetensors")
    again = Digits()
    Ticket.load("digits_trained.safetensors").apply(again)
    images, _ = next(iter(val))
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model.eval()(images))
    print(f"{trained.kept} of {trained.prunable} weights: accuracy {result['val_acc']:.1%}")


if __name__ == "__main__":
    main()

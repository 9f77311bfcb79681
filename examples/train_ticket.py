"""Trains a saved ticket, with its pruned weights held at zero.

Run: python examples/own_model.py, which saves a ticket; then python examples/train_ticket.py

Needs pip install 'lightning-lottery[demo]'.
"""

import argparse

import torch
from lightning.pytorch import Trainer, seed_everything
from own_model import Digits, loaders

from lightning_lottery import Ticket, TicketCallback


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ticket", nargs="?", default="digits_ticket.safetensors", help="a ticket file")
    path = parser.parse_args().ticket

    seed_everything(1)
    model = Digits()
    train, val = loaders()
    # The callback sets the starting values before the first step, and masks the gradients of all others.
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
        assert torch.equal(again.network(images).argmax(1), model.eval().network(images).argmax(1))
    print(f"{trained.kept} of {trained.prunable} weights: accuracy {result['val_acc']:.1%}")


if __name__ == "__main__":
    main()

"""Finds tickets of your own LightningModule.

Run: python examples/own_model.py

Classifies scikit-learn's digits, 1,797 images of 8 x 8 pixels. Started again, it goes on where it was stopped;
remove the folder lottery_digits to train anew. In a clone, pip install -e '.[demo]' installs what it needs.
"""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_lottery import LotteryTicketCallback, ShuffleMask, Ticket


class Digits(LightningModule):
    """An ordinary LightningModule, without any code for tickets."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(),
            nn.Linear(32 * 4 * 4, 10),
        )  # fmt: skip

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val_acc", (self(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003, fused=True)


def loaders():
    """Batches of 1,500 images to train, and 297 others to validate: the same ones in each program."""
    images, labels = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels))
    train, val = random_split(data, [1500, 297], generator=torch.Generator().manual_seed(0))
    return DataLoader(train, 50, shuffle=True), DataLoader(val, 297)


def main():
    seed_everything(0)
    lottery = LotteryTicketCallback(
        densities=[0.4, 0.2, 0.1],
        monitor="val_acc",
        mode="max",
        controls=[ShuffleMask()],
        dirpath="lottery_digits",
    )
    trainer = Trainer(max_epochs=6, callbacks=[lottery], logger=False, enable_checkpointing=False)
    trainer.fit(Digits(), *loaders(), ckpt_path=lottery.resume(trainer))

    # Save the smallest ticket that is at most one percentage point worse than the dense network.
    lottery.smallest_matching(tolerance=0.01).save("digits_ticket.safetensors")
    ticket = Ticket.load("digits_ticket.safetensors")
    model = Digits()
    ticket.apply(model)
    print(f"digits_ticket.safetensors: round {ticket.round}, {ticket.kept} of {ticket.prunable} weights")


if __name__ == "__main__":
    main()

"""Finds tickets of a Hugging Face transformer.

Run: python examples/transformer.py

A GPT-2 with two layers and random weights learns to write English, letter by letter, from the manual that is part
of Python. Nothing is downloaded. Takes three to five minutes on one CPU core. In a clone,
pip install -e '.[report]' transformers installs what it needs.
"""

import argparse
import math
from pydoc_data.topics import topics

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader, TensorDataset
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_lottery import LotteryTicketCallback, ShuffleMask

LENGTH = 64  # letters of a text; the network guesses each one from those before it


class Letters(LightningModule):
    """An ordinary LightningModule around a transformer, without any code for tickets."""

    def __init__(self):
        super().__init__()
        config = GPT2Config(
            vocab_size=128,
            n_positions=LENGTH,
            n_embd=96,
            n_layer=2,
            n_head=4,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.transformer = GPT2LMHeadModel(config)

    def training_step(self, batch, batch_idx):
        (letters,) = batch
        guesses = self.transformer(letters).logits[:, :-1]
        return torch.nn.functional.cross_entropy(guesses.flatten(0, 1), letters[:, 1:].flatten())

    def validation_step(self, batch, batch_idx):
        self.log("val_bits", self.training_step(batch, batch_idx) / math.log(2), batch_size=len(batch[0]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.002, fused=True)


def loaders(texts):
    """Batches of texts of the manual: the first nine tenths to train, the rest to validate."""
    letters = torch.tensor(list("\n".join(topics.values()).encode("ascii", "replace")))
    rows = letters[: len(letters) // LENGTH * LENGTH].view(-1, LENGTH)
    train, val = rows[: len(rows) * 9 // 10][:texts], rows[len(rows) * 9 // 10 :][:1000]
    return DataLoader(TensorDataset(train), 32, shuffle=True), DataLoader(TensorDataset(val), 250)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=6000, help="texts to train with, at most 6,500")
    parser.add_argument("--epochs", type=int, default=2, help="epochs per round")
    options = parser.parse_args()
    if not 100 <= options.texts <= 6500:
        parser.error(f"--texts {options.texts} is not from 100 to 6500.")

    seed_everything(0)
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.25, 0.1], monitor="val_bits", mode="min", controls=[ShuffleMask()], control_rounds=[3]
    )
    trainer = Trainer(max_epochs=options.epochs, callbacks=[lottery], logger=False, enable_checkpointing=False)
    trainer.fit(Letters(), *loaders(options.texts))

    for record in lottery.records:
        print(f"{record.branch}, {record.density:.0%} of the matrices: {record.best_value:.2f} bits per letter")


if __name__ == "__main__":
    main()

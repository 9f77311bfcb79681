"""Criteria use data and loss without side effects."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from lightning_lottery import (
    SNIP,
    EarlyBird,
    GraSP,
    LargeFinalSameSign,
    LotteryTicketCallback,
    MagnitudeIncrease,
    Movement,
    Random,
    SynFlow,
    Taylor,
    TrainingError,
)
from lightning_lottery.rules.settings import described
from tests.helpers.fits import Model, loaders, quiet_trainer
from tests.helpers.looking import rounds
from tests.helpers.rounds import Rounds

CRITERIA = [
    Random(), Movement(), MagnitudeIncrease(), LargeFinalSameSign(), SNIP(2), Taylor(2), GraSP(), SynFlow(5),
    torch.square,
]  # fmt: skip


@pytest.mark.parametrize("criterion", CRITERIA, ids=described)
def test_a_criterion_has_no_side_effects_on_the_training(digits, criterion):
    """Every round is bit-equal to a fresh fit of its masked weights, with dropout, shuffling, metrics, buffers."""
    done = rounds(digits, criterion=criterion)
    done.check_fresh()
    counts = [record.kept for record in done.lottery.records]
    assert counts[1:] == [counts[0] - round(0.5 * counts[0]), counts[1] - round(0.5 * counts[1])]


def test_a_training_step_that_writes_to_weights_and_reads_no_index(digits):
    class Teacher(Model):
        def __init__(self):
            super().__init__()
            self.teacher = nn.Linear(2, 2).requires_grad_(False)

        def training_step(self, batch):
            self.teacher.weight += 1  # like a teacher network
            return {"loss": super().training_step(batch, 0)}

    model = Teacher()
    lottery = LotteryTicketCallback(
        rounds=1, amount=0.5, criterion=SNIP(), exclude=["teacher.*"], prune_at_init=True, verbose=False
    )
    done = Rounds(model, lambda: loaders(digits), lottery=lottery).fit()
    assert torch.equal(done.spy.starts[0]["teacher.weight"], done.initial["teacher.weight"])
    assert not model.teacher.weight.requires_grad


class Modes(Callback):
    """Records whether layers are in training mode."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append({layer.training for layer in pl_module.modules()})


@pytest.mark.parametrize("criterion", [SNIP(), SynFlow(2), Random()], ids=str)
def test_layers_train_in_training_mode_whatever_the_criterion(digits, criterion):
    class Forward(Model):
        def forward(self, images):
            return self.network(images)

    modes = Modes()
    lottery = LotteryTicketCallback(
        rounds=1, amount=0.5, criterion=criterion, stop=[EarlyBird(2, 0.0)], verbose=False
    )
    quiet_trainer(callbacks=[lottery, modes]).fit(Forward(), *loaders(digits))
    assert modes.seen == [{True}] * 28


@pytest.mark.slow
def test_persistent_workers_are_not_disturbed(digits):
    """Scoring uses its own iterator: every round sees all its batches, in the order of a fresh fit."""
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, criterion=SNIP(2), verbose=False)
    options = {"num_workers": 1, "persistent_workers": True}
    done = Rounds(Model(), lambda: loaders(digits, **options), lottery=lottery).fit()
    done.check_fresh()
    assert done.spy.steps == [14, 14, 14]


def test_a_training_step_that_changes_its_batch_logs_directly_and_skips(digits):
    class Rough(Model):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def training_step(self, batch, batch_idx):
            self.calls += 1
            labels = batch.pop("labels")
            self.logger.log_metrics({"calls": self.calls}, step=self.calls)
            if self.calls % 4 == 0:
                return None
            return nn.functional.cross_entropy(self.network(batch["images"].mul_(2).sub_(1)), labels)

    images, labels = digits
    data = [{"images": images[i], "labels": labels[i]} for i in range(64)]
    logger = CSVLogger(".", flush_logs_every_n_steps=1)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, criterion=GraSP(batches=3), verbose=False)
    trainer = quiet_trainer(callbacks=[lottery], logger=logger, max_epochs=1)
    trainer.fit(Rough(), DataLoader(data, batch_size=16))
    assert [record.round for record in lottery.records] == [0, 1]
    logged = (Path(logger.log_dir) / "round_00" / "metrics.csv").read_text().splitlines()
    assert len(logged) == 1 + 4, "four batches, and none of the scoring"


class Collecting(Model):
    """A list that a training hook creates, batches fill and the end of the epoch clears."""

    seen: tuple = ()

    def on_train_start(self):
        self.outputs = []

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.outputs.append(loss.detach())
        return loss

    def on_train_epoch_end(self):
        self.seen = (*self.seen, len(self.outputs))
        self.outputs.clear()


def test_attributes_collected_by_a_module_are_restored(digits):
    model = Collecting()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, criterion=Taylor(3), verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    assert model.seen == (7, 7) * 3
    assert model.outputs == []
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, criterion=Taylor(3), prune_at_init=True, verbose=False)
    with pytest.raises(TrainingError, match=r"without the hooks on_train_.*no attribute 'outputs'"):
        quiet_trainer(callbacks=[lottery]).fit(Collecting(), *loaders(digits))

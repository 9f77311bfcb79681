"""The state of other callbacks is rewound before every round."""

import pytest
from lightning.pytorch import Callback
from torchmetrics import MetricTracker
from torchmetrics.classification import MulticlassAccuracy

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, loaders, quiet_trainer


class Tracking(Callback):
    """Keeps the best accuracy of a training in its own metric."""

    def __init__(self):
        self.tracker = MetricTracker(MulticlassAccuracy(10, average="micro"), maximize=True)

    def on_validation_epoch_start(self, trainer, pl_module):
        self.tracker.increment()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
        self.tracker.update(pl_module.network(batch[0]).argmax(1), batch[1])

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("best", float(self.tracker.best_metric()), prog_bar=False)


@pytest.mark.parametrize("rewind", ["init", "1 epochs"])
def test_metrics_of_a_callback_are_rewound(digits, rewind):
    lottery = LotteryTicketCallback(
        densities=[0.5, 0.01], rewind=rewind, monitor="best", mode="max", verbose=False
    )
    trainer = quiet_trainer(callbacks=[lottery, Tracking()], num_sanity_val_steps=0, max_epochs=3)
    trainer.fit(Model(), *loaders(digits))
    dense, half, hundredth = (record.metrics for record in lottery.records)
    assert hundredth["best"] < dense["best"] - 0.1, "not the best value of the dense round"
    assert half["best"] >= half["val_acc"]

"""The curve of the monitored metric against what a callback sees that is told of every value."""

import pytest
from lightning.pytorch import Callback

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, loaders, quiet_trainer


class Told(Model):
    """Notes every value that it logs: after each validation, and at the end of each training epoch."""

    def on_fit_start(self):
        self.told = {name: [] for name in ("val", "train", "late")}

    def on_train_start(self):
        for curves in self.told.values():
            curves.append([])

    def note(self, name, value):
        if not self.trainer.sanity_checking:
            self.told[name][-1].append((self.trainer.global_step, value))
        self.log(name, value)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train", 0.25 * (self.trainer.current_epoch + 1), on_step=False, on_epoch=True)
        return loss

    def on_validation_epoch_end(self):
        self.note("val", 0.5)  # the same value, again and again

    def on_train_epoch_end(self):
        self.told["train"][-1].append((self.trainer.global_step, 0.25 * (self.trainer.current_epoch + 1)))
        self.note("late", float(self.trainer.current_epoch))


@pytest.mark.parametrize("monitor", ["val", "train", "late"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"val_check_interval": 3},
        {"check_val_every_n_epoch": 2},
        {"val_check_interval": 2, "accumulate_grad_batches": 3},
    ],
    ids=str,
)
def test_the_curve_has_every_value_at_its_step(digits, monitor, options):
    model = Told()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, monitor=monitor, mode="max", verbose=False)
    other = Callback()
    other.on_validation_end = lambda trainer, module: trainer.callback_metrics  # computes all values again
    quiet_trainer(callbacks=[lottery, other], max_epochs=4, **options).fit(model, *loaders(digits))
    for record, expected in zip(lottery.records, model.told[monitor], strict=True):
        assert len(expected) >= 2
        if "accumulate_grad_batches" in options:  # equal values at one step are one point
            expected = list(dict.fromkeys(expected))
        assert list(record.curve) == expected
        assert record.last_step == record.steps


def test_a_round_from_a_later_point_begins_with_its_own_values(digits):
    model = Told()
    lottery = LotteryTicketCallback(
        rounds=1, amount=0.5, monitor="val", mode="max", rewind="1 epoch", verbose=False
    )
    quiet_trainer(callbacks=[lottery], max_epochs=3).fit(model, *loaders(digits))
    assert [step for step, _ in lottery.records[0].curve] == [7, 14, 21]
    assert [step for step, _ in lottery.records[1].curve] == [14, 21]
    assert [(record.steps, record.last_step) for record in lottery.records] == [(21, 21), (14, 21)]

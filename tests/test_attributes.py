"""After a fit, attributes that users and other callbacks have set are restored."""

import copy
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar

from lightning_lottery import LotteryTicketCallback
from tests.helpers.fits import Model, loaders, quiet_trainer
from tests.helpers.loggers import Strict


class Bar(TQDMProgressBar):
    """A bar whose user has changed what it shows, on the object itself."""

    def __init__(self):
        super().__init__()
        own = self.get_metrics
        self.get_metrics = lambda *args: {**own(*args), "mine": 1}


@pytest.mark.parametrize("fails", [False, True])
def test_attributes_set_by_users_are_restored_after_a_fit(digits, tmp_path, fails):
    class Failing(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if fails and len(lottery.records) == 1:
                raise ZeroDivisionError

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    bar, logger, saved, logged = Bar(), Strict(), [], []
    trainer = quiet_trainer(
        callbacks=[lottery, bar, Failing(), ModelCheckpoint(tmp_path / "c")],
        logger=logger,
        enable_progress_bar=True,
        enable_checkpointing=True,
        max_epochs=1,
    )
    save, log = trainer.save_checkpoint, logger.log_metrics
    trainer.save_checkpoint = lambda *args, **kwargs: (saved.append(args[0]), save(*args, **kwargs))
    logger.log_metrics = lambda *args, **kwargs: (logged.append(args[0]), log(*args, **kwargs))
    before = [vars(thing).copy() for thing in (trainer, bar, logger)]
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        trainer.fit(Model(), *loaders(digits))
    for thing, then, name in zip(
        (trainer, bar, logger), before, ("save_checkpoint", "get_metrics", "log_metrics"), strict=True
    ):
        assert vars(thing)[name] is then[name], name
    assert len(saved) == (1 if fails else 2)
    assert {"val_acc", "lottery/density", "lottery/round"} <= set().union(*logged)
    assert "mine" in bar.get_metrics(trainer, trainer.lightning_module)


def test_later_replacements_stay(digits):
    class Over(Callback):
        def setup(self, trainer, pl_module, stage):
            save = trainer.save_checkpoint
            trainer.save_checkpoint = self.save = lambda *args, **kwargs: save(*args, **kwargs)

    lottery, over = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False), Over()
    trainer = quiet_trainer(callbacks=[lottery, over], max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    assert trainer.save_checkpoint is over.save
    trainer.save_checkpoint("after.ckpt")
    assert torch.load("after.ckpt", weights_only=False)["global_step"] == 7


def test_a_copied_checkpoint_callback_does_not_write_into_an_earlier_run(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    first = ModelCheckpoint(tmp_path / "first")
    quiet_trainer(callbacks=[lottery, first], enable_checkpointing=True, max_epochs=1).fit(
        Model(), *loaders(digits)
    )
    files = sorted(path for path in tmp_path.rglob("*.ckpt"))
    second = copy.deepcopy(first)
    second.dirpath = str(Path(second.dirpath).with_name("second"))
    quiet_trainer(callbacks=[second], enable_checkpointing=True, max_epochs=2).fit(Model(), *loaders(digits))
    assert sorted(set(tmp_path.rglob("*.ckpt")) - set(files)) == [tmp_path / "second" / "epoch=1-step=14.ckpt"]

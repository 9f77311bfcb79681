"""Resuming after faults: full disks, exceptions, signals, kills."""

import errno
import os
import random
from pathlib import Path

import pytest
from lightning.pytorch import Callback
from torch import nn

from lightning_lottery import FolderError, LotteryTicketCallback, files
from tests.helpers.fits import Model, Spy, loaders, quiet_trainer
from tests.helpers.kill_campaign import campaign, quiet
from tests.helpers.resuming import Manual, Stop, build, outcome


@pytest.mark.parametrize("failing", range(9, 16))
def test_a_full_disk_ends_with_a_clear_error_and_keeps_all_finished_rounds(digits, tmp_path, monkeypatch, failing):
    trainer, model, data, _ = build(tmp_path / "whole", "epochs", digits)
    trainer.fit(model, *data)
    expected = outcome(tmp_path / "whole", model)

    written, sync = [], os.fsync

    def full(handle):
        written.append(handle)
        if len(written) >= failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    trainer, model, data, lottery = build(tmp_path / "run", "epochs", digits)
    with pytest.raises(
        FolderError, match=r"cannot be written: No space left on device. All files written before are"
    ):
        trainer.fit(model, *data)
    monkeypatch.undo()
    assert not list((tmp_path / "run" / "run").rglob(".*"))
    trainer, model, data, lottery = build(tmp_path / "run", "epochs", digits, seed=77)
    trainer.fit(model, *data, ckpt_path=lottery.resume(trainer))
    assert outcome(tmp_path / "run", model) == expected


def test_an_unwritable_folder_is_reported_before_training(digits, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)  # root may write anywhere
    spy = Spy()
    trainer, model, data, _ = build(tmp_path, "epochs", digits, spy)
    with pytest.raises(FolderError, match=r"cannot be written: Permission denied.*make the folder writable"):
        trainer.fit(model, *data)
    assert not spy.starts


def test_a_checkpoint_written_on_an_exception_resumes_with_a_message(digits, tmp_path, capsys):
    class OnException(Callback):
        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "exception.ckpt")

    lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=tmp_path / "run")
    with pytest.raises(ZeroDivisionError):
        quiet_trainer(callbacks=[lottery, OnException(), Stop(1, 5)]).fit(Model(), *loaders(digits))
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=tmp_path / "run")
    trainer = quiet_trainer(callbacks=[lottery])
    trainer.fit(Model(), *loaders(digits), ckpt_path=tmp_path / "exception.ckpt")
    assert [record.steps for record in lottery.records] == [14, 14, 14]
    assert "written during an interrupted batch" in capsys.readouterr().out


def test_a_checkpoint_between_two_rounds_starts_the_next_round(digits, tmp_path):
    """A checkpoint on an exception, when the data of the next round cannot be loaded."""

    class OnException(Callback):
        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "run" / "exception.ckpt")

    class NoMoreData(Callback):
        def on_train_end(self, trainer, pl_module):
            if pl_module.trainer.callbacks[0].records:  # the first was recorded, the second has trained
                trainer.fit_loop.setup_data = self.fail

        def fail(self):
            raise ZeroDivisionError

    def fit(folder, *others, path=None, seed=77):
        trainer, model, data, _ = build(folder, "epochs", digits, *others, seed=seed)
        trainer.fit(model, *data, ckpt_path=path)
        return outcome(folder, model)

    expected = fit(tmp_path / "whole", seed=3)
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path / "run", NoMoreData(), OnException(), seed=3)
    assert fit(tmp_path / "run", path=tmp_path / "run" / "exception.ckpt") == expected


def test_an_interruption_while_only_one_optimizer_is_trained_freezes_nothing(digits, tmp_path):
    class Toggling(Manual):
        stop = False

        def training_step(self, batch, batch_idx):
            for optimizer in self.optimizers():
                self.toggle_optimizer(optimizer)
                if self.stop and self.global_step >= 8:
                    raise KeyboardInterrupt
                self.manual_backward(nn.functional.cross_entropy(self.network(batch[0]), batch[1]))
                optimizer.step()
                optimizer.zero_grad()
                self.untoggle_optimizer(optimizer)

    class OnException(Callback):
        def on_exception(self, trainer, pl_module, exception):
            trainer.save_checkpoint(tmp_path / "exception.ckpt")

    def fit(stop, path=None):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "run", verbose=False)
        model = Toggling()
        model.stop = stop
        quiet_trainer(callbacks=[lottery, OnException()]).fit(model, *loaders(digits), ckpt_path=path)
        return lottery, model

    with pytest.raises(SystemExit):
        fit(stop=True)
    lottery, model = fit(stop=False, path=tmp_path / "exception.ckpt")
    assert [record.steps for record in lottery.records] == [28, 28]
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_state_that_cannot_be_read_safely_warns_before_training(digits):
    class Odd(Model):
        def get_extra_state(self):
            return {"odd": Path("somewhere")}

        def set_extra_state(self, state):
            pass

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    with pytest.warns(UserWarning, match="This run cannot be resumed if it is interrupted"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Odd(), *loaders(digits))


@pytest.mark.slow
def test_runs_killed_at_random_moments_are_bit_equal(tmp_path):
    quiet()
    assert campaign(30, tmp_path, random.Random(7)) == []

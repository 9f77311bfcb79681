"""How fits end: as planned, by Ctrl-C, by an error, by time. Finished rounds are kept."""

import copy
import json
import time

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer

from lightning_lottery import (
    ConfigurationError,
    LotteryTicketCallback,
    Reinitialize,
    Ticket,
    TrainingError,
)
from tests.helpers.fits import Model, Spy, copied, loaders, quiet_trainer, same_bits


def test_a_trainer_that_has_trained_before(digits):
    spy = Spy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, spy], max_epochs=1)
    model = Model()
    trainer.fit(model, *loaders(digits))
    masks, records = lottery.tickets[1].masks, list(lottery.records)
    trainer.fit(model, *loaders(digits))  # at its limits: Lightning trains nothing
    assert spy.events == ["start", "end"] * 2
    assert list(lottery.records) == records
    assert all(torch.equal(lottery.tickets[1].masks[name], mask) for name, mask in masks.items())
    trainer.fit_loop.max_epochs = 3
    with pytest.raises(ConfigurationError, match=r"already trained 7 steps.*Create a new Trainer"):
        trainer.fit(model, *loaders(digits))
    assert list(lottery.records) == records


def test_a_monitor_that_is_never_logged_is_named_after_the_first_round(digits):
    spy = Spy()
    lottery = LotteryTicketCallback(rounds=3, amount=0.5, monitor="val_accuracy", mode="max", verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, spy], max_epochs=1)
    with pytest.raises(TrainingError, match=r"'val_accuracy' was never logged.*'train_loss'.*'val_acc'"):
        trainer.fit(Model(), *loaders(digits))
    assert spy.events == ["start", "end"]
    assert len(lottery.records) == 1, "the round is finished, so it is kept"


def test_nan_weights_at_pruning_time_keep_the_rounds_files(digits):
    class Diverge(Callback):
        def on_train_end(self, trainer, pl_module):
            if len(lottery.records) == 1:
                with torch.no_grad():
                    pl_module.network.hidden.weight.fill_(torch.nan)

    lottery = LotteryTicketCallback(rounds=3, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Diverge()], max_epochs=1)
    with pytest.raises(TrainingError, match=r"'network.hidden.weight' contain NaN"):
        trainer.fit(Model(), *loaders(digits))
    lines = (lottery.run_folder / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1]
    assert list(lottery.tickets) == [0, 1]
    assert lottery.tickets[1].kept == lottery.records[1].kept


@pytest.mark.parametrize("diverging", [0, 1, 2])
def test_a_diverged_training_is_reported_at_pruning(digits, diverging):
    class Diverging(Model):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * torch.nan if len(lottery.records) == diverging and batch_idx == 3 else loss

    lottery = LotteryTicketCallback(rounds=3, amount=0.5, verbose=False)
    with pytest.raises(TrainingError, match=r"contain NaN and cannot be ranked"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Diverging(), *loaders(digits))
    assert [record.round for record in lottery.records] == list(range(diverging + 1))


def test_a_training_that_steps_no_optimizer_is_not_pruned(digits):
    class Never(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            self.optimizers().zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    with pytest.raises(TrainingError, match=r"has counted no optimizer step.*self.optimizers\(\)"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Never(), *loaders(digits))
    assert not lottery.records


def test_a_callback_that_writes_pruned_weights_stops_the_run(digits):
    class Vandal(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            with torch.no_grad():
                pl_module.network.hidden.weight.add_(0.1)

    lottery = LotteryTicketCallback(rounds=3, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Vandal()], max_epochs=1)
    with pytest.raises(TrainingError, match=r"pruned weights of 'network.hidden.weight' are no longer zero"):
        trainer.fit(Model(), *loaders(digits))
    assert len(lottery.records) == 1


class Interrupt(Callback):
    """Raises in the middle of round 2."""

    def __init__(self, lottery, error):
        self.lottery, self.error = lottery, error

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if len(self.lottery.records) == 2 and batch_idx == 2:
            self.optimizers = trainer.optimizers
            raise self.error


@pytest.mark.parametrize(
    ("error", "seen"),
    [(KeyboardInterrupt(), (SystemExit, KeyboardInterrupt)), (ZeroDivisionError("mine"), ZeroDivisionError)],
)
def test_an_interrupt_keeps_finished_rounds_and_restores_the_trainer(digits, error, seen, capsys):
    class Odd(torch.optim.SGD):
        """An optimizer that needs a hook."""

    class OddModel(Model):
        def configure_optimizers(self):
            return Odd(self.parameters(), lr=0.1)

    lottery = LotteryTicketCallback(rounds=4, amount=0.5, monitor="val_acc", mode="max")
    interrupt = Interrupt(lottery, error)
    trainer = quiet_trainer(callbacks=[lottery, interrupt], max_epochs=1, logger=True)
    loop_class, loggers = type(trainer.fit_loop), trainer.loggers
    with pytest.raises(seen):
        trainer.fit(OddModel(), *loaders(digits))
    assert f"Stopped. 2 finished rounds are in the run folder: {lottery.run_folder}" in capsys.readouterr().out
    assert [record.round for record in lottery.records] == [0, 1]
    lines = (lottery.run_folder / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1]
    assert Ticket.load(lottery.run_folder / "tickets" / "round_01.safetensors").density == pytest.approx(
        0.5, rel=1e-3
    )
    assert type(trainer.fit_loop) is loop_class
    assert "dataloader" not in vars(trainer.fit_loop._data_source)
    assert trainer.loggers is loggers or trainer.loggers == loggers
    assert interrupt.optimizers
    assert all(not optimizer._optimizer_step_post_hooks for optimizer in interrupt.optimizers)
    # The same callback starts a new run in a new Trainer.
    again = quiet_trainer(callbacks=[lottery], max_epochs=1)
    again.fit(Model(), *loaders(digits))
    assert [record.round for record in lottery.records] == [0, 1, 2, 3, 4]


class Slow(Callback):
    def __init__(self, seconds):
        self.seconds = seconds

    def on_train_batch_end(self, *_):
        time.sleep(self.seconds)


def test_max_time_ends_a_later_round_in_its_middle(digits):
    class StopFirst(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.should_stop or len(lottery.records) == 0

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=2, amount=0.1, verbose=False)
    callbacks = [lottery, spy, StopFirst(), Slow(0.01)]
    trainer = quiet_trainer(callbacks=callbacks, max_epochs=200, max_time={"seconds": 1}, limit_val_batches=0)
    trainer.fit(Model(), *loaders(digits))  # a whole round takes more than 14 s
    assert [record.steps for record in lottery.records] == [1]
    assert len(spy.steps) == 2
    assert spy.steps[1] < 200


def test_max_time_is_the_budget_of_all_rounds(digits):
    spy = Spy()
    lottery = LotteryTicketCallback(rounds=50, amount=0.1, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, spy, Slow(0.05)], max_epochs=1, max_time={"seconds": 1})
    trainer.fit(Model(), *loaders(digits))  # a round takes about 0.35 s
    timer = next(callback for callback in trainer.callbacks if isinstance(callback, Timer))
    assert 1 <= len(lottery.records) <= 3
    assert len(spy.steps) <= 4
    assert timer.time_elapsed() >= 1
    assert all(record.steps == 7 for record in lottery.records), "a round that time cut short leaves no record"


def test_max_time_in_a_control_leaves_the_last_ticket(digits):
    class StopTickets(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.should_stop or len(lottery.records) < 2

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[Reinitialize()], verbose=False)
    callbacks = [lottery, spy, StopTickets(), Slow(0.01)]
    trainer = quiet_trainer(callbacks=callbacks, max_epochs=200, max_time={"seconds": 1}, limit_val_batches=0)
    model = Model()
    trainer.fit(model, *loaders(digits))
    assert [record.branch for record in lottery.records] == ["ticket", "ticket"]
    assert len(spy.ends) == 3
    assert same_bits(copied(model), spy.ends[1])


def test_nothing_is_pruned_when_nothing_was_trained(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5)
    model = Model()
    quiet_trainer(callbacks=[lottery], limit_train_batches=0).fit(model, *loaders(digits))
    assert len(lottery.records) == 0
    assert model.network.hidden.weight.all()


class Extended(LotteryTicketCallback):
    """A user's subclass, with its own attribute."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.notes = ["mine"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_of_the_callback_start_without_a_run(digits, copied):
    class Copying(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if len(lottery.records) == 1 and batch_idx == 3:
                copies.append(copied(lottery))

    copies: list[LotteryTicketCallback] = []
    lottery = Extended(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, Copying()], max_epochs=1).fit(Model(), *loaders(digits))
    copies.append(copied(lottery))
    for number, other in enumerate(copies, start=1):
        assert (len(other.records), other.run_folder, len(other.tickets)) == (0, None, 0)
        assert other.settings == lottery.settings
        assert other.notes == ["mine"]
        assert (other.notes is lottery.notes) == (copied is copy.copy)
        before = list(lottery.records)
        quiet_trainer(callbacks=[other], max_epochs=1).fit(Model(), *loaders(digits))
        assert other.run_folder.name == f"lottery_{number}"
        assert list(lottery.records) == before
        assert lottery.run_folder.name == "lottery"


def test_a_copy_of_the_callback_does_not_receive_the_run_of_another_process(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    other = copy.deepcopy(lottery)
    assert vars(other)["_mailbox"] is not vars(lottery)["_mailbox"]
    assert vars(vars(other)["_mailbox"])["_path"] != vars(vars(lottery)["_mailbox"])["_path"]

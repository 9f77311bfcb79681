"""Bad input: refused before any training, and what stops a run keeps what is finished."""

import gc
import json
import time
from contextlib import nullcontext

import pytest
import torch
from conftest import Model, Spy, copied, loaders, quiet_trainer, same_bits
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, Timer
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    Control,
    LotteryTicketCallback,
    Reinitialize,
    Ticket,
    TrainingError,
)


def refused(digits, message, model=None, lottery=None, error=ConfigurationError, fit=None, **trainer):
    """Fits, and makes sure that the error came before the first training."""
    spy = Spy()
    lottery = lottery or LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    callbacks = [lottery, spy, *trainer.pop("callbacks", [])]
    trainer = quiet_trainer(callbacks=callbacks, **trainer)
    loop_class = type(trainer.fit_loop)
    with pytest.raises(error, match=message):
        trainer.fit(model or Model(), *loaders(digits), **(fit or {}))
    assert spy.events == [], "the error came after training had begun"
    assert type(trainer.fit_loop) is loop_class


def test_two_callbacks_in_one_trainer(digits):
    second = LotteryTicketCallback(rounds=1, amount=0.5)
    refused(digits, "has 2 callbacks of type LotteryTicketCallback", callbacks=[second])


def test_a_strategy_that_cannot_work_yet(digits):
    refused(digits, "strategy DDPStrategy is not supported yet.*devices=1", strategy="ddp", devices=1)


def test_max_epochs_without_end(digits):
    refused(digits, "max_epochs=-1 came without another limit.*max_epochs=10", max_epochs=-1)
    refused(digits, "max_time is the budget of all rounds", max_epochs=-1, max_time="00:00:01:00")


@pytest.mark.parametrize("limit", [{"max_steps": 3}, {"callbacks": [EarlyStopping("val_acc", patience=1)]}])
def test_max_epochs_without_end_but_with_another_limit(digits, limit):
    spy = Spy()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    options = {"max_epochs": -1, **limit}
    options["callbacks"] = [lottery, spy, *options.get("callbacks", [])]
    quiet_trainer(**options).fit(Model(), *loaders(digits))
    assert spy.events == ["start", "end"] * 2


def test_lazy_layers(digits):
    network = nn.Sequential(nn.LazyLinear(10))
    refused(digits, "lazy layers of '.*0.weight'", model=Model(network))


def test_lazy_layers_made_by_configure_model(digits):
    class Late(Model):
        def configure_model(self):
            self.network = nn.Sequential(nn.LazyLinear(10))

    refused(digits, "lazy layers", model=Late())


def test_no_prunable_parameter_and_patterns_that_match_nothing(digits):
    with_nothing = LotteryTicketCallback(rounds=1, amount=0.5, exclude=["*"])
    refused(digits, "no prunable parameter", lottery=with_nothing)
    with_typo = LotteryTicketCallback(rounds=1, amount=0.5, include=["netwrok.*"])
    refused(digits, r"include='netwrok.\*' matches no parameter", lottery=with_typo)


def test_sizes_too_small_for_the_network(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.0001)
    refused(
        digits,
        "Round 1 would train 784 of 784.*Each round must remove",
        lottery=lottery,
        model=Model(nn.Linear(784, 1)),
    )


def test_controls_that_cannot_be_fair(digits):
    control = Reinitialize(initialize=lambda module: None)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[control])
    refused(digits, "The function initialize of Reinitialize does not set", lottery=lottery)


def test_a_folder_that_holds_another_run(digits, tmp_path):
    arguments = {"rounds": 1, "amount": 0.5, "dirpath": tmp_path / "run", "verbose": False}
    quiet_trainer(callbacks=[LotteryTicketCallback(**arguments)]).fit(Model(), *loaders(digits))
    first = (tmp_path / "run" / "rounds.jsonl").read_bytes()
    refused(
        digits,
        "holds another run. Write another folder, or overwrite=True",
        lottery=LotteryTicketCallback(**arguments),
    )
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == first
    again = LotteryTicketCallback(**arguments, overwrite=True)
    quiet_trainer(callbacks=[again], max_epochs=1).fit(Model(), *loaders(digits))
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() != first


def test_a_file_where_the_folder_should_be(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "file" / "run")
    refused(digits, "cannot be a folder, since .*file' is a file", lottery=lottery)


def test_a_folder_that_cannot_be_written(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath="/proc/run")
    refused(digits, "/proc/run", lottery=lottery, error=OSError)


def test_a_folder_whose_run_finished_no_round_is_free(digits, tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, *_):
            raise ZeroDivisionError

    for callbacks, error in (([Stop()], pytest.raises(ZeroDivisionError)), ([], nullcontext())):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "run", verbose=False)
        with error:
            quiet_trainer(callbacks=[lottery, *callbacks], max_epochs=1).fit(Model(), *loaders(digits))
    assert len(lottery.records) == 2


def test_a_control_that_returns_no_ticket(digits):
    class Broken(Control):
        def ticket(self, ticket, dense, module, seed):
            return None

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=[Broken()])
    refused(digits, r"control .*Broken.* must return a Ticket, and has returned None", lottery=lottery)


def test_without_dirpath_an_earlier_run_is_never_in_the_way(digits, tmp_path):
    for expected in ("lottery", "lottery_1"):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
        assert lottery.run_folder == tmp_path / expected


def test_a_checkpoint_to_go_on_from(digits, tmp_path):
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    refused(digits, "ckpt_path='.*some.ckpt' came", fit={"ckpt_path": tmp_path / "some.ckpt"})


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
    with pytest.raises(ConfigurationError, match=r"trained 7 steps already.*Make a new Trainer"):
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
    with pytest.raises(TrainingError, match=r"'network.hidden.weight' holds NaN"):
        trainer.fit(Model(), *loaders(digits))
    lines = (lottery.run_folder / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [0, 1]
    assert list(lottery.tickets) == [0, 1]
    assert lottery.tickets[1].kept == lottery.records[1].kept


@pytest.mark.parametrize("diverging", [0, 1, 2])
def test_a_training_that_diverges_is_said_when_it_is_to_be_pruned(digits, diverging):
    class Diverging(Model):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return loss * torch.nan if len(lottery.records) == diverging and batch_idx == 3 else loss

    lottery = LotteryTicketCallback(rounds=3, amount=0.5, verbose=False)
    with pytest.raises(TrainingError, match="holds NaN, which has no rank: the training has diverged"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Diverging(), *loaders(digits))
    assert [record.round for record in lottery.records] == list(range(diverging + 1))


def test_steps_that_go_past_lightning_are_refused(digits):
    class Past(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            super().training_step(batch, batch_idx).backward()
            optimizer.step()

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    with pytest.raises(TrainingError, match=r"has counted no step of an optimizer.*self.optimizers\(\)"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Past(), *loaders(digits))


def test_a_pruned_weight_that_somebody_moves_stops_the_run(digits):
    class Vandal(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            with torch.no_grad():
                pl_module.network.hidden.weight.add_(0.1)

    lottery = LotteryTicketCallback(rounds=3, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Vandal()], max_epochs=1)
    with pytest.raises(TrainingError, match=r"pruned weights of 'network.hidden.weight' are not zero"):
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
def test_an_interrupt_keeps_finished_rounds_and_leaves_the_trainer_alone(digits, error, seen, capsys):
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
    assert f"Stopped; 2 finished rounds are in the run folder: {lottery.run_folder}" in capsys.readouterr().out
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
    # The same callback serves a new Trainer, and starts afresh.
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


def test_fast_dev_run_tries_every_round_and_leaves_no_run_folder_behind(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=tmp_path / "run", verbose=False)
    quiet_trainer(callbacks=[lottery], fast_dev_run=True).fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [1, 1, 1]
    assert not (tmp_path / "run").exists()
    folder = lottery.run_folder
    assert folder.exists()
    del lottery
    gc.collect()
    assert not folder.exists()

"""Which run folder a fit uses, and which run it resumes."""

import multiprocessing
import shutil
import time
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger

from lightning_lottery import ConfigurationError, LotteryTicketCallback, Ticket
from lightning_lottery.storage.folder import RunFolder
from lightning_lottery.storage.tickets import Tickets
from tests.helpers.earlier_version import build
from tests.helpers.fits import Model, loaders, quiet_trainer, same_bits
from tests.helpers.loggers import Strict
from tests.helpers.resuming import Stop


def fit(digits, resume=False, others=(), logger=False, model=None, **arguments):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False, **arguments)
    trainer = quiet_trainer(callbacks=[lottery, *others], logger=logger, max_epochs=1)
    path = lottery.resume(trainer) if resume else None
    trainer.fit(model or Model(), *loaders(digits), ckpt_path=path)
    return lottery


def test_resume_has_no_side_effects(digits, tmp_path):
    first = fit(digits, dirpath=tmp_path / "run")
    kept = {path.name: path.read_bytes() for path in first.run_folder.iterdir() if path.is_file()}
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False, dirpath=tmp_path / "run", overwrite=True)
    trainer = quiet_trainer(callbacks=[lottery], max_epochs=1)
    assert lottery.resume(trainer) == str(tmp_path / "run")
    assert kept == {path.name: path.read_bytes() for path in first.run_folder.iterdir() if path.is_file()}
    trainer.fit(Model(), *loaders(digits))
    assert len(lottery.records) == 3
    assert (tmp_path / "run" / "lottery.json").read_bytes() != kept["lottery.json"]
    other = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False, dirpath=tmp_path / "run")
    trainer = quiet_trainer(callbacks=[other], max_epochs=1)
    other.resume(trainer)
    with pytest.raises(ConfigurationError, match="contains another run"):
        trainer.fit(Model(), *loaders(digits))


def test_a_run_without_checkpoints_resumes_from_its_folder(digits, tmp_path):
    with pytest.raises(ZeroDivisionError):
        fit(digits, others=[Stop(2)], dirpath=tmp_path / "run")
    starts = []

    class Starts(Callback):
        def on_train_start(self, trainer, pl_module):
            starts.append(len(lottery.records))

    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False, dirpath=tmp_path / "run")
    trainer = quiet_trainer(callbacks=[lottery, Starts()], max_epochs=1)
    trainer.fit(Model(), *loaders(digits), ckpt_path=tmp_path / "run")  # a path, and without resume()
    assert starts == [2]
    assert len(lottery.records) == 3
    assert trainer.ckpt_path is None


def test_a_run_that_was_moved_is_finds_its_checkpoint(digits, tmp_path):
    def trained(folder, others=(), resume=False):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        trainer = quiet_trainer(
            callbacks=[lottery, *others], logger=CSVLogger(folder, "logs"), max_epochs=1, enable_checkpointing=True
        )
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer) if resume else None)
        return lottery

    class StopLate(Callback):
        def on_train_end(self, trainer, pl_module):
            if "round_01" in trainer.checkpoint_callback.dirpath:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained(tmp_path / "here", [StopLate()])
    shutil.move(tmp_path / "here", tmp_path / "there")
    lottery = trained(tmp_path / "there", resume=True)
    assert lottery.run_folder == tmp_path / "there" / "logs" / "version_0" / "lottery"
    assert len(lottery.records) == 2
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("limits", [{"max_steps": 5}, {}])
def test_a_run_without_max_epochs_is_found(digits, limits):
    class Enough(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch > 0

    def go(*others):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        trainer = quiet_trainer(callbacks=[lottery, Enough(), *others], max_epochs=None, **limits)
        trainer.fit(Model(), *loaders(digits), ckpt_path=lottery.resume(trainer))
        return lottery

    with pytest.raises(ZeroDivisionError):
        go(Stop(1))
    lottery = go()
    assert lottery.run_folder.name == "lottery"
    assert len(lottery.records) == 2


class Interfering(Callback):
    """Starts another fit with the same folder in the middle of a round."""

    def __init__(self, digits, round_number, **arguments):
        self.digits, self.round, self.arguments, self.seen = digits, round_number, arguments, None

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        own = next(c for c in trainer.callbacks if isinstance(c, LotteryTicketCallback))
        if self.seen is None and len(own.records) == self.round:
            with torch.random.fork_rng():
                try:
                    self.seen = fit(self.digits, **self.arguments).run_folder
                except ConfigurationError as error:
                    self.seen = error


@pytest.mark.parametrize(("number", "resume"), [(0, False), (0, True), (1, True)])
def test_two_jobs_with_one_folder_are_kept_apart_from_the_first_round_on(
    digits, tmp_path, monkeypatch, number, resume
):
    monkeypatch.setattr("lightning_lottery.preflight.locate.PATIENCE", 0.1)
    folder = tmp_path / "run"
    expected = fit(digits, dirpath=tmp_path / "alone", model=Model())
    other = Interfering(digits, number, dirpath=folder, resume=resume)
    torch.manual_seed(0)
    lottery = fit(digits, others=[other], dirpath=folder)
    assert "is training in the run folder" in str(other.seen)
    assert str(folder) in str(other.seen)
    assert len(lottery.records) == len(expected.records) == 3
    assert [record.round for record in RunFolder(folder).read_records()] == [0, 1, 2]
    assert len(fit(digits, dirpath=folder, overwrite=True).records) == 3, "the lock is free after the fit"


def test_without_dirpath_two_jobs_take_two_folders(digits):
    other = Interfering(digits, 0)
    lottery = fit(digits, others=[other])
    assert (lottery.run_folder.name, other.seen.name) == ("lottery", "lottery_1")
    assert len(lottery.records) == len(RunFolder(other.seen).read_records()) == 3


def test_a_folder_is_locked_when_it_is_chosen(digits):
    """A job that starts during the sanity check, before the first file is written, takes another folder."""
    Path("lottery").mkdir()
    with FileLock("lottery/lottery.lock"):
        assert fit(digits).run_folder.name == "lottery_1"

    class During(Callback):
        def on_sanity_check_end(self, trainer, pl_module):
            assert not RunFolder(Path("lottery")).lock(wait=0)
            assert not Path("lottery/lottery.json").exists()

    assert fit(digits, others=[During()]).run_folder.name == "lottery"


def train(folder, barrier, results):
    """One of two jobs that start at the same moment."""
    torch.set_num_threads(1)
    trainer, model, data, lottery = build(folder)
    barrier.wait(120)
    try:
        trainer.fit(model, *data)
        results.put(len(lottery.records))
    except ConfigurationError as error:
        results.put(str(error))


def test_two_processes_that_start_in_one_folder(tmp_path):
    """One trains its whole run, undisturbed; the other is refused."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    jobs = [context.Process(target=train, args=(tmp_path / "both", barrier, results)) for _ in range(2)]
    for job in jobs:
        job.start()
    ended = [results.get(timeout=300) for _ in jobs]
    for job in jobs:
        job.join()
    trained, refused = sorted(ended, key=lambda result: isinstance(result, str))
    assert trained == 5
    assert "is training in the run folder" in refused or "contains another run" in refused
    trainer, model, data, lottery = build(tmp_path / "alone")
    trainer.fit(model, *data)
    for number in range(3):
        alone = lottery.tickets[number]
        together = Tickets(RunFolder(tmp_path / "both" / "run"))[number]
        assert same_bits(alone.weights, together.weights)
        assert same_bits(alone.masks, together.masks)


def hold(path, ready):
    folder = RunFolder(Path(path))
    folder.lock(wait=0)
    ready.set()
    time.sleep(600)
    folder.unlock()


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60)
    folder = RunFolder(tmp_path)
    assert not folder.lock(wait=0)
    process.kill()
    process.join()
    assert folder.lock(wait=10)
    folder.unlock()


@pytest.mark.parametrize("address", ["s3://bucket/run", "gs://b/r", Path("s3://bucket/run"), "file:///tmp/run"])
def test_a_url_is_not_a_folder(tmp_path, address):
    with pytest.raises(ConfigurationError, match=r"is a URL.*dirpath='runs/mine'"):
        LotteryTicketCallback(rounds=1, amount=0.5, dirpath=address)
    ticket = Ticket({"w": torch.tensor([True])}, {"w": torch.ones(1)})
    for use in (ticket.save, Ticket.load):
        with pytest.raises(ConfigurationError, match=r"is a URL.*'ticket.safetensors'"):
            use(address)
    assert list(tmp_path.iterdir()) == []


class Paths(Strict):
    """A logger whose folder is a Path."""

    save_dir = property(lambda self: Path("logged"))


def test_a_logger_whose_folder_is_a_path(digits):
    assert fit(digits, logger=Paths()).run_folder == Path("logged/strict/version_0/lottery")


class NoId(Paths):
    version = None


def test_a_logger_with_only_a_path(digits):
    assert fit(digits, logger=NoId()).run_folder == Path("logged/lottery")


def test_what_resume_ignores(digits, tmp_path):
    class Named(Model):
        def __init__(self, run_name, width=3):
            super().__init__()
            self.save_hyperparameters()

    def go(others=(), ignore=(), **hparams):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False, dirpath=tmp_path / "run")
        trainer = quiet_trainer(callbacks=[lottery, *others], max_epochs=1)
        path = lottery.resume(trainer, ignore=ignore)
        trainer.fit(Named(**hparams), *loaders(digits), ckpt_path=path)
        return lottery

    with pytest.raises(ZeroDivisionError):
        go([Stop(1)], run_name="exp-10:52")
    with pytest.raises(ConfigurationError, match=r"run_name was .*10:52.* is .*10:53.*ignore=\['run_name'\]"):
        go(run_name="exp-10:53")
    with pytest.raises(ConfigurationError, match="width was '3' and is now '4'"):
        go(run_name="exp-10:53", width=4, ignore=["run_name"])
    with pytest.raises(ConfigurationError, match="ignore='run_name' is not a list"):
        go(run_name="exp-10:53", ignore="run_name")
    assert len(go(run_name="exp-10:53", ignore=["run_*"]).records) == 2


def test_other_command_lines_do_not_mention_missing_options(digits, capsys):
    trainer = quiet_trainer(callbacks=[LotteryTicketCallback(rounds=1, amount=0.5), Stop(1)], max_epochs=1)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Model(), *loaders(digits))
    said = capsys.readouterr().out
    assert "To resume: call trainer.fit(..., ckpt_path=lottery.resume(trainer))." in said
    assert "--resume" not in said

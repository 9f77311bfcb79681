"""Test metrics from checkpoints, against accuracies of the same weights on the same images."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from lightning_lottery import ConfigurationError, LotteryTicketCallback, ShuffleMask, Study
from lightning_lottery.analysis import record_tests
from lightning_lottery.tickets import RoundId
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer


class Tested(Model):
    """Its validation accuracy is scripted, so that the best epoch is known."""

    def validation_step(self, batch, batch_idx):
        self.log("val_acc", [0.5, 0.9, 0.7][self.trainer.current_epoch])

    def test_step(self, batch, batch_idx):
        images, labels = batch
        self.log("test_acc", (self(images).argmax(1) == labels).float().mean(), batch_size=len(labels))


class Weights(Callback):
    """The weights after every epoch of every round."""

    def __init__(self):
        self.rounds = []

    def on_train_start(self, trainer, pl_module):
        self.rounds.append([])

    def on_train_epoch_end(self, trainer, pl_module):
        self.rounds[-1].append(copied(pl_module))


def test_loader(digits):
    images, labels = (part[-500:-200] for part in digits)
    return DataLoader(TensorDataset(images, labels), batch_size=100)


test_loader.__test__ = False


def accuracy(weights, digits):
    images, labels = (part[-500:-200] for part in digits)
    model = Model(Net()).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def fitted(digits, *checkpoints, **options):
    weights = Weights()
    options = {"densities": [0.4], "controls": [ShuffleMask()], "monitor": "val_acc", "mode": "max", **options}
    lottery = LotteryTicketCallback(dirpath="run", verbose=False, **options)
    trainer = quiet_trainer(callbacks=[lottery, weights, *checkpoints], enable_checkpointing=True, max_epochs=3)
    trainer.fit(Tested(), *loaders(digits))
    return weights


def evaluate(digits):
    trainer, model = quiet_trainer(), Tested()
    return lambda path: trainer.test(model, test_loader(digits), ckpt_path=path, verbose=False)


BOTH = (
    lambda: ModelCheckpoint("kept", monitor="val_acc", mode="max"),
    lambda: ModelCheckpoint("kept"),
)


def test_every_round_is_tested_with_its_last_and_its_best_weights(digits):
    weights = fitted(digits, *(make() for make in BOTH))
    tests = record_tests("run", evaluate(digits))
    assert list(tests) == [RoundId(0), RoundId(1), RoundId(1, "shuffle_mask")]
    for test, epochs in zip(tests.values(), weights.rounds, strict=True):
        assert test.last == {"test_acc": pytest.approx(accuracy(epochs[2], digits), abs=1e-6)}
        assert test.best == {"test_acc": pytest.approx(accuracy(epochs[1], digits), abs=1e-6)}
    assert Study.read("run")[next(iter(Study.read("run")))].tests == tests


@pytest.mark.parametrize(("kept", "there"), [(0, "best"), (1, "last")])
def test_what_was_not_kept_is_left_out(digits, kept, there):
    fitted(digits, BOTH[kept](), controls=[])
    tests = record_tests("run", evaluate(digits))
    for test in tests.values():
        assert {name for name in ("last", "best") if getattr(test, name) is not None} == {there}


def test_a_second_time_replaces_only_what_is_measured_again(digits):
    fitted(digits, *(make() for make in BOTH), controls=[])
    first = record_tests("run", evaluate(digits))
    for path in Path("kept").glob("*/epoch=1-*"):  # the best ones
        path.unlink()
    again = record_tests("run", lambda path: {"test_acc": 2.0})
    assert [test.best for test in again.values()] == [test.best for test in first.values()]
    assert [test.last for test in again.values()] == [{"test_acc": 2.0}] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"save_top_k": -1, "every_n_train_steps": 7},  # before the validation at the same step
        {"save_top_k": -1, "save_weights_only": True},
        {"save_top_k": -1, "filename": "{epoch}", "save_last": True},
    ],
    ids=str,
)
def test_best_and_last_weights_are_found_among_all_checkpoints(digits, options):
    weights = fitted(digits, ModelCheckpoint("kept", **options))
    for test, epochs in zip(record_tests("run", evaluate(digits)).values(), weights.rounds, strict=True):
        assert test.last == {"test_acc": pytest.approx(accuracy(epochs[2], digits), abs=1e-6)}
        assert test.best == {"test_acc": pytest.approx(accuracy(epochs[1], digits), abs=1e-6)}


def test_checkpoints_are_found_after_late_rewinding_and_without_a_monitored_metric(digits):
    weights = fitted(digits, BOTH[1](), controls=[], rewind="1 epoch", monitor=None, mode=None)
    tests = record_tests("run", evaluate(digits))
    assert tests[RoundId(1)].last == {"test_acc": pytest.approx(accuracy(weights.rounds[1][-1], digits), abs=1e-6)}
    assert tests[RoundId(1)].best is None


def test_an_interruption_keeps_what_was_tested(digits):
    fitted(digits, *(make() for make in BOTH))
    test, calls = evaluate(digits), []

    def stop(path):
        calls.append(path)
        if len(calls) > 2:
            raise KeyboardInterrupt
        return test(path)

    with pytest.raises(KeyboardInterrupt):
        record_tests("run", stop)
    (run,) = Study.read("run").values()
    assert list(run.tests) == [RoundId(0)]


def test_a_run_without_checkpoints_is_refused_with_the_remedy(digits):
    lottery = LotteryTicketCallback(densities=[0.4], dirpath="run", verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
    with pytest.raises(ConfigurationError, match=r"No checkpoint of the last or best weights.*ModelCheckpoint\("):
        record_tests("run", evaluate(digits))
    Path("empty").mkdir()
    with pytest.raises(ConfigurationError, match="'empty' is not a run folder with finished rounds"):
        record_tests("empty", evaluate(digits))


def test_without_test_metrics_nothing_is_recorded(digits):
    fitted(digits, BOTH[1](), controls=[])
    with pytest.raises(ConfigurationError, match=r"no test metrics for .*\. The data need a test_dataloader"):
        record_tests("run", lambda path: [])
    assert not Path("run/tests.jsonl").exists()


def test_the_validation_set_is_not_a_test_set(digits):
    fitted(digits, BOTH[1](), controls=[])
    with pytest.warns(UserWarning, match="Is the test set the validation set"):
        record_tests("run", lambda path: [{"test_acc": 0.7}])


def test_search_rounds_are_not_tested(digits):
    fitted(digits, ModelCheckpoint(), rounds=2, amount=0.5, densities=None, controls=[], search="50%")
    assert list(record_tests("run", evaluate(digits))) == [RoundId(0), RoundId(2)]

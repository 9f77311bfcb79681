"""Bad input is refused before any training."""

import gc
from contextlib import nullcontext

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    EarlyStopping,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    Control,
    FineTune,
    LotteryTicketCallback,
    Reinitialize,
)
from tests.helpers.fits import Model, Spy, loaders, quiet_trainer, same_bits
from tests.helpers.resuming import build, interrupted


def refused(digits, message, model=None, lottery=None, error=ConfigurationError, fit=None, **trainer):
    """Checks that fit raises the error before the first training."""
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
    class Other(LotteryTicketCallback):
        """Lightning itself refuses a second callback of exactly the same class."""

    refused(digits, "has 2 callbacks of type LotteryTicketCallback", callbacks=[Other(rounds=1, amount=0.5)])
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        quiet_trainer(callbacks=[LotteryTicketCallback(rounds=1, amount=0.5) for _ in range(2)])


def test_a_strategy_that_cannot_work(digits):
    class Strange(SingleDeviceStrategy):  # like Lightning's strategies for other devices
        __module__ = "lightning.pytorch.strategies.strange"

    class Further(Strange):
        pass

    for strategy in (Strange("cpu"), Further("cpu")):
        message = f"strategy {type(strategy).__name__} is not supported.*devices=1"
        refused(digits, message, strategy=strategy)


def test_a_strategy_derived_from_one_that_works(digits):
    class Mine(SingleDeviceStrategy):
        pass

    class Further(Mine):
        pass

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], strategy=Further("cpu"), max_epochs=1).fit(Model(), *loaders(digits))
    assert len(lottery.records) == 2


def test_another_callback_that_prunes(digits):
    pruning = ModelPruning("l1_unstructured", amount=0.5)
    refused(digits, "ModelPruning cannot be combined with LotteryTicketCallback.*Keep one", callbacks=[pruning])


def test_late_rewinding_with_stochastic_weight_averaging(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="1 epoch")
    swa = StochasticWeightAveraging(swa_lrs=0.05)
    refused(digits, "cannot be combined with StochasticWeightAveraging", lottery=lottery, callbacks=[swa])


def test_max_epochs_without_end(digits):
    refused(digits, "max_epochs=-1 needs another limit.*max_epochs=10", max_epochs=-1)
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
        "Round 1 would keep 784 of 784.*Each round must remove",
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
        "contains another run. Resume it with .*overwrite=True",
        lottery=LotteryTicketCallback(**arguments),
    )
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() == first
    again = LotteryTicketCallback(**arguments, overwrite=True)
    quiet_trainer(callbacks=[again], max_epochs=1).fit(Model(), *loaders(digits))
    assert (tmp_path / "run" / "rounds.jsonl").read_bytes() != first


def test_a_file_where_the_folder_should_be(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath=tmp_path / "file" / "run")
    refused(digits, "cannot be a folder, because .*file' is a file", lottery=lottery)


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
    refused(digits, r"control .*Broken.* must return a Ticket, but returned None", lottery=lottery)


def test_without_dirpath_an_earlier_run_is_never_in_the_way(digits, tmp_path):
    for expected in ("lottery", "lottery_1"):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(), *loaders(digits))
        assert lottery.run_folder == tmp_path / expected


def test_a_checkpoint_without_a_round_is_refused(digits, tmp_path):
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(Model(), *loaders(digits))
    trainer.save_checkpoint(tmp_path / "some.ckpt")
    refused(
        digits,
        "some.ckpt' contains no round to resume: it was written without",
        fit={"ckpt_path": tmp_path / "some.ckpt"},
    )


def test_fast_dev_run_tries_every_round_without_a_run_folder(digits, tmp_path):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, dirpath=tmp_path / "run", verbose=False)
    quiet_trainer(callbacks=[lottery], fast_dev_run=True).fit(Model(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [1, 1, 1]
    assert not (tmp_path / "run").exists()
    folder = lottery.run_folder
    assert folder.exists()
    del lottery
    gc.collect()
    assert not folder.exists()


def test_what_controls_draw_does_not_change_the_training(digits):
    class Drawing(Control):
        def check(self, dense, module):
            torch.rand(3)

        def ticket(self, ticket, dense, module, seed):
            torch.rand(3)
            return ticket

    ends = []
    for controls in ([], [Drawing()]):
        torch.manual_seed(4)
        spy, model = Spy(), Model()
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, controls=controls, verbose=False)
        quiet_trainer(callbacks=[lottery, spy], max_epochs=1).fit(model, *loaders(digits))
        ends.append(spy.ends[:2])
    assert all(same_bits(one, other) for one, other in zip(*ends, strict=True))


def test_a_finetuning_callback_with_late_rewinding_is_refused(digits):
    class Unfreeze(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            pass

        def finetune_function(self, pl_module, epoch, optimizer):
            pass

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="1 epoch")
    refused(
        digits,
        "cannot be combined with Unfreeze, which replaces schedulers or adds parameter groups",
        lottery=lottery,
        callbacks=[Unfreeze()],
    )


def test_fine_tuning_with_manually_stepped_schedulers_is_refused(digits):
    class Manual(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            pass

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind=FineTune(1, 0.1), verbose=False)
    refused(
        digits,
        "with manual optimization the LightningModule steps them itself",
        model=Manual(scheduler="step"),
        lottery=lottery,
    )


def test_a_trainer_of_another_package():
    class Trainer:
        callbacks: tuple = ()

    with pytest.raises(
        ConfigurationError, match="Import Trainer, LightningModule and everything else from lightning"
    ):
        LotteryTicketCallback(rounds=1, amount=0.5).setup(Trainer(), Model(), "fit")


def test_a_tuner_in_a_resumed_run_is_refused(digits, tmp_path):
    path = interrupted(digits, tmp_path)
    trainer, model, data, _ = build(tmp_path, "steps", digits, LearningRateFinder(num_training_steps=2))
    with pytest.raises(ConfigurationError, match="LearningRateFinder runs when a fit begins"):
        trainer.fit(model, *data, ckpt_path=path)


def test_a_folder_that_is_not_local(digits):
    refused(digits, "which is not a local folder. Write for example", default_root_dir="memory://runs")


def test_an_optimizer_unknown_to_lightning_is_refused(digits):
    class Own(Model):
        automatic_optimization = False

        def configure_optimizers(self):
            self.mine = torch.optim.Adam(self.network.parameters())

    refused(digits, r"returns no optimizer with parameters.*Return it from configure_optimizers", model=Own())

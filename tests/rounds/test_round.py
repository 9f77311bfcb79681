"""What a round detects in its training: weights that others write, and NaN."""

import copy

import pytest
from lightning.pytorch import Callback
from torch import nn

from lightning_lottery import LotteryTicketCallback, TrainingError
from tests.helpers.fits import Model, copied, loaders, quiet_trainer


class OwnAverage(Callback):
    """Averages weights, is not rewound, and swaps its average in for every validation."""

    average = None

    def on_train_batch_end(self, trainer, pl_module, *_):
        now = {name: p.detach().clone() for name, p in pl_module.named_parameters()}
        before = self.average or now
        self.average = {name: 0.9 * before[name] + 0.1 * value for name, value in now.items()}

    def on_validation_start(self, trainer, pl_module):
        self.kept = copied(pl_module)
        if self.average is not None:
            pl_module.load_state_dict({**self.kept, **self.average})

    def on_validation_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.kept)


class AverageAtTheEnd(OwnAverage):
    """The same, copied in at the end of the training."""

    def on_validation_start(self, *_):
        pass

    def on_validation_end(self, *_):
        pass

    def on_train_end(self, trainer, pl_module):
        pl_module.load_state_dict({**pl_module.state_dict(), **self.average})


class InBatches(OwnAverage):
    """The same, for every batch."""

    def on_validation_start(self, *_):
        pass

    def on_validation_end(self, *_):
        pass

    def on_validation_batch_start(self, trainer, pl_module, *_):
        OwnAverage.on_validation_start(self, trainer, pl_module)

    def on_validation_batch_end(self, trainer, pl_module, *_):
        OwnAverage.on_validation_end(self, trainer, pl_module)


class OtherNetwork(OwnAverage):
    """The same, with the average in a copy of the network."""

    def on_validation_start(self, trainer, pl_module):
        self.network, pl_module.network = pl_module.network, copy.deepcopy(pl_module.network)

    def on_validation_end(self, trainer, pl_module):
        pl_module.network = self.network


class InTheStep(Model):
    """Swaps its own average in and out inside validation_step."""

    def __init__(self):
        super().__init__()
        self.swap = OwnAverage()

    def on_train_batch_end(self, *_):
        self.swap.on_train_batch_end(None, self)

    def validation_step(self, batch, batch_idx):
        self.swap.on_validation_start(None, self)
        super().validation_step(batch, batch_idx)
        self.swap.on_validation_end(None, self)


@pytest.mark.parametrize("is_first", [False, True])
@pytest.mark.parametrize("kind", [OwnAverage, InBatches, OtherNetwork, InTheStep])
def test_an_average_swapped_in_for_validation_is_detected(digits, kind, is_first):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, monitor="val_acc", mode="max", verbose=False)
    others, model = ([], InTheStep()) if kind is InTheStep else ([kind()], Model())
    callbacks = [*others, lottery] if is_first else [lottery, *others]
    expected = r"round_01 is validated with other weights .*hidden.weight.*'val_acc' belongs"
    with pytest.warns(UserWarning, match=expected) as warned:
        quiet_trainer(callbacks=callbacks).fit(model, *loaders(digits))
    assert sum("is validated with" in str(warning.message) for warning in warned) == 1
    assert not any(layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize("is_first", [False, True])
def test_an_average_copied_in_at_the_end_is_detected_and_masked(digits, is_first):
    model = Model()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    callbacks = [AverageAtTheEnd(), lottery] if is_first else [lottery, AverageAtTheEnd()]
    with pytest.warns(UserWarning, match=r"At the end of round_0[12], pruned weights .*hidden.weight") as warned:
        quiet_trainer(callbacks=callbacks).fit(model, *loaders(digits))
    assert sum("set to zero" in str(warning.message) for warning in warned) == 2
    for name, mask in lottery.tickets[2].masks.items():
        assert not model.get_parameter(name)[~mask].any()


def test_a_round_that_ends_in_nan_is_reported_including_the_last(digits):
    class Diverging(Model):
        rounds = 0

        def on_train_start(self):
            self.rounds += 1

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * (float("nan") if self.rounds == 3 else 1)

    lottery = LotteryTicketCallback(rounds=2, amount=0.5, monitor="val_loss", mode="min", verbose=False)
    with pytest.warns(UserWarning, match=r"round_02 has diverged: .*'network.convolution.weight'") as warned:
        quiet_trainer(callbacks=[lottery]).fit(Diverging(), *loaders(digits))
    assert sum("has diverged" in str(warning.message) for warning in warned) == 1
    assert len(lottery.records) == 3


def test_a_layer_replaced_during_training_is_named_after_the_epoch(digits):
    class Replacing(Model):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.network.output = nn.Linear(24, 10)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    with pytest.raises(TrainingError, match=r"^During round_00, .* \['network.output.weight'\].*exclude="):
        quiet_trainer(callbacks=[lottery], max_epochs=3).fit(Replacing(), *loaders(digits))


def test_nan_in_buffers_is_reported(digits):
    class Spoiled(Model):
        def on_train_epoch_end(self):
            self.network.norm.running_var.fill_(float("nan"))

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    with pytest.warns(UserWarning, match=r"round_01 has diverged: .*'network.norm.running_var' contained NaN"):
        quiet_trainer(callbacks=[lottery]).fit(Spoiled(), *loaders(digits))


def test_a_layer_replaced_at_the_end_of_a_round_is_named_before_the_next(digits):
    class Replacing(Model):
        def on_train_end(self):
            self.network.output = nn.Linear(24, 10)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    with pytest.raises(TrainingError, match=r"^During round_00, .* \['network.output.weight'\]"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Replacing(), *loaders(digits))
    assert [record.round for record in lottery.records] == [0], "the round that was trained stays"

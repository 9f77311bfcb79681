"""What counts as a copy that follows trained weights, and what does not."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightning_lottery import LotteryTicketCallback, Random, TrainingError
from lightning_lottery.pruning.copies import averages_of
from lightning_lottery.pruning.prunable import COPIED, select
from tests.helpers.copies import Averaged, Momentum
from tests.helpers.fits import Model, loaders, quiet_trainer
from tests.helpers.rounds import PRUNED, rounds


class Fixed(Model):
    """A fixed reference, as in distillation and DPO."""

    def __init__(self):
        super().__init__()
        self.reference = copy.deepcopy(self.network).requires_grad_(False)

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), lr=0.1)


@pytest.mark.parametrize("exclude", [["frozen"], ["reference.*"], []])
def test_equal_weights_that_do_not_change_are_not_copies(digits, exclude):
    run = rounds(
        digits, Fixed(), lottery=LotteryTicketCallback(rounds=2, amount=0.5, exclude=exclude, verbose=False)
    )
    for number, start in enumerate(run.spy.starts):
        for name in PRUNED:
            reference = start[name.replace("network", "reference")]
            if exclude:
                assert torch.equal(reference, run.initial[name]), "excluded weights are never touched"
            else:  # pruned by magnitude like other frozen weights, not by the mask of the original
                mask = run.lottery.tickets[number].masks[name.replace("network", "reference")]
                assert torch.equal(reference, run.initial[name] * mask)


def test_excluded_copies_are_never_touched(digits):
    for make, part in ((Momentum, "teacher"), (Averaged, "average.module")):
        lottery = LotteryTicketCallback(rounds=1, amount=0.5, exclude=[f"{part}.*"], verbose=False)
        run = rounds(digits, make(), lottery=lottery)
        for start in run.spy.starts:
            for name in PRUNED:
                excluded = name.replace("network", part)
                assert torch.equal(start[excluded], run.initial[excluded])


def test_phases_with_optimizers_of_their_own(digits):
    class Phases(Model):
        def on_train_epoch_start(self):
            if self.current_epoch == 1:
                self.network.hidden.requires_grad_(False)
                self.trainer.strategy.optimizers = [torch.optim.SGD(self.network.output.parameters(), lr=0.1)]

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=3).fit(Phases(), *loaders(digits))
    assert list(lottery.tickets[1].masks) == PRUNED


def test_layers_that_are_unfrozen_later_are_pruned(digits):
    class Unfreezing(BaseFinetuning):
        def freeze_before_training(self, pl_module):
            self.freeze(pl_module.network.hidden)

        def finetune_function(self, pl_module, epoch, optimizer):
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.network.hidden, optimizer)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, Unfreezing()], max_epochs=3).fit(Model(), *loaders(digits))
    assert list(lottery.tickets[1].masks) == PRUNED


class Shadow(Model):
    """An average in buffers, as in implementations of diffusion models."""

    def __init__(self):
        super().__init__()
        self.shadow = nn.Module()
        for name, parameter in self.network.named_parameters():
            self.shadow.register_buffer(name.replace(".", ""), parameter.detach().clone())

    @torch.no_grad()
    def on_train_batch_end(self, *_):
        for name, parameter in self.network.named_parameters():
            getattr(self.shadow, name.replace(".", "")).lerp_(parameter, 0.1)


def test_an_average_in_buffers_averages_masked_weights(digits):
    run = rounds(digits, Shadow())
    for number, end in enumerate(run.spy.ends):
        for name, mask in run.lottery.tickets[number].masks.items():
            average = end["shadow." + name.removeprefix("network.").replace(".", "")]
            assert not average[~mask].any()
            assert average[mask].any()


def test_among_equal_networks_the_followed_one_is_the_original(digits):
    class Twins(Model):
        def __init__(self):
            super().__init__()
            self.second = copy.deepcopy(self.network)
            self.targets = nn.ModuleList([copy.deepcopy(self.network), copy.deepcopy(self.second)])
            self.average = AveragedModel(self.second, multi_avg_fn=get_ema_multi_avg_fn(0.9))

        def training_step(self, batch, batch_idx):
            images, labels = batch
            return super().training_step(batch, batch_idx) + nn.functional.cross_entropy(
                self.second(images), 9 - labels
            )

        @torch.no_grad()
        def on_train_batch_end(self, *_):
            self.average.update_parameters(self.second)
            for target, network in zip(self.targets, (self.network, self.second), strict=True):
                for slow, fast in zip(target.parameters(), network.parameters(), strict=True):
                    slow.lerp_(fast, 0.1)

        def configure_optimizers(self):
            return torch.optim.SGD([*self.network.parameters(), *self.second.parameters()], lr=0.1)

    run = rounds(digits, Twins())
    pairs = {"targets.0.": "network.", "targets.1.": "second.", "average.module.": "second."}
    for number, end in enumerate(run.spy.ends):
        masks = run.lottery.tickets[number].masks
        assert len(masks) == 6
        for name, mask in masks.items():
            for part, source in pairs.items():
                if name.startswith(source):
                    assert not end[part + name.removeprefix(source)][~mask].any(), (part, name)


def test_with_prune_at_init_all_copies_are_named_after_the_first_epoch(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, prune_at_init=True, criterion=Random(), verbose=False)
    trainer = quiet_trainer(callbacks=[lottery], max_epochs=9)
    teachers = [name.replace("network", "teacher") for name in PRUNED]

    class Drifting(Momentum):
        @torch.no_grad()
        def on_train_batch_end(self, *_):
            for slow in self.teacher.parameters():
                slow.add_(0.01)

    with pytest.raises(TrainingError) as error:
        trainer.fit(Drifting(), *loaders(digits))
    assert f"exclude={teachers}" in str(error.value)
    assert trainer.current_epoch == 0


def test_weights_that_only_the_module_writes_cannot_be_pruned(digits):
    class ByHand(Model):
        @torch.no_grad()
        def on_train_batch_end(self, *_):
            for parameter in self.network.parameters():
                parameter.add_(0.01)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.head(batch[0]), batch[1])

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(784, 10)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, exclude=["head.*"], verbose=False)
    trainer = quiet_trainer(callbacks=[lottery], max_epochs=9)
    with pytest.raises(TrainingError, match="all prunable weights changed without ever having a gradient"):
        trainer.fit(ByHand(), *loaders(digits))
    assert trainer.current_epoch == 0


def test_averages_are_named_before_training(capsys):
    model = Averaged()
    averages = [name.replace("network", "average.module") for name in PRUNED]
    preview = LotteryTicketCallback(rounds=1, amount=0.5).preview(model)
    assert [name for name, reason in preview.left_out.items() if reason == COPIED] == averages
    assert "copies of trained weights 6,484 (average.module." in capsys.readouterr().out
    assert set(averages) < set(select(model, include=averages).parameters)
    assert averages_of(model) == {
        f"average.module.{name}": f"network.{name}" for name, _ in model.network.named_parameters()
    }
    assert averages_of(Model()) == {}


def test_the_original_of_an_average_is_the_network_that_it_was_made_of():
    module = nn.Module()
    module.first, module.second = nn.Linear(3, 3), nn.Linear(3, 3)
    module.average = AveragedModel(module.second)
    assert averages_of(module) == {"average.module.weight": "second.weight", "average.module.bias": "second.bias"}
    nn.init.ones_(module.second.weight)
    assert set(averages_of(module).values()) == {None}, "both might be"


@pytest.mark.parametrize("clears", [True, False])
@pytest.mark.parametrize("backward", ["backward", "manual_backward"])
def test_gradients_that_are_cleared_before_the_end_of_the_batch_count(digits, clears, backward):
    class Manual(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss) if backward == "manual_backward" else loss.backward()
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.step()
            optimizer.zero_grad(set_to_none=clears)

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Manual(), *loaders(digits))
    assert list(lottery.tickets[1].masks) == PRUNED

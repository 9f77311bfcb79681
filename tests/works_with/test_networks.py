"""Unusual networks and optimizers in rounds."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_lottery import Global, LotteryTicketCallback, Reinitialize
from tests.helpers.fits import Model, Net, Spy, loaders, quiet_trainer


def test_pruned_weights_are_zero_after_every_step_with_any_optimizer(digits):
    class Lookaround(torch.optim.SGD):
        """Not elementwise: every weight of a tensor moves by the mean step."""

        @torch.no_grad()
        def step(self, closure=None):
            loss = closure()
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(0.01 * parameter.grad.mean() + 0.01)
            return loss

    class Watch(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            masks = lottery.tickets[max(lottery.tickets)].masks
            for name, parameter in pl_module.named_parameters():
                if name in masks:
                    assert not parameter[~masks[name]].any()

    class Odd(Model):
        def configure_optimizers(self):
            return Lookaround(self.parameters(), lr=0.1)

    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Watch()], max_epochs=1)
    trainer.fit(Odd(), *loaders(digits))
    assert len(lottery.records) == 3
    assert not trainer.optimizers[0]._optimizer_step_post_hooks, "the hook was left on the user's optimizer"


def test_manual_optimization_with_plain_backward_and_two_optimizers(digits):
    class Manual(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            images, labels = batch
            loss = nn.functional.cross_entropy(self.network(images), labels)
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            loss.backward()
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            network = self.network
            first = [*network.convolution.parameters(), *network.norm.parameters()]
            second = [*network.hidden.parameters(), *network.output.parameters()]
            return torch.optim.SGD(first, 0.1, momentum=0.9), torch.optim.Adam(second, 0.01)

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, spy]).fit(Manual(), *loaders(digits))
    assert len(set(spy.steps)) == 1
    assert spy.steps[0] > 0
    for number, end in enumerate(spy.ends):
        for name, mask in lottery.tickets[number].masks.items():
            assert not end[name][~mask].any()
            assert end[name][mask].all()


def test_weights_in_channels_last(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, controls=[Reinitialize()], verbose=False)
    model = Model(Net().to(memory_format=torch.channels_last))
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert lottery.records[2].kept == lottery.tickets[2].kept


def test_tied_weights_are_counted_once(digits):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(784, 784, bias=False)
            self.again = nn.Linear(784, 784, bias=False)
            self.again.weight = self.inner.weight
            self.output = nn.Linear(784, 10)

        def forward(self, images):
            return self.output(self.again(self.inner(images).relu()).relu())

    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    model = Model(Tied())
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert lottery.records[0].prunable == 784 * 784 + 7840
    assert lottery.records[1].kept == (784 * 784 + 7840) // 2
    assert model.network.again.weight is model.network.inner.weight


class Faint(Net):
    """Its last layer loses all weights first."""

    def __init__(self):
        super().__init__()
        nn.init.uniform_(self.output.weight, -1e-9, 1e-9)
        self.output.weight.requires_grad_(False)


def test_a_layer_about_to_become_empty_is_named_and_keeps_its_last_weight(digits):
    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    model = Model(Faint())
    largest = model.network.output.weight.abs().flatten().argmax()
    with pytest.warns(UserWarning, match="round_01 would keep nothing of 'network.output.weight'. One unit stays"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    mask = lottery.tickets[1].masks["network.output.weight"]
    assert mask.flatten().nonzero().flatten().tolist() == [largest]
    assert lottery.records[1].kept == round(0.5 * lottery.records[0].kept)


def test_a_layer_that_becomes_empty_is_named(digits):
    lottery = LotteryTicketCallback(densities=[0.5], scope=Global(keep_alive=False), verbose=False)
    with pytest.warns(UserWarning, match="round_01 keeps no weight of 'network.output.weight'"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(Faint()), *loaders(digits))
    assert lottery.tickets[1].layer_densities()["network.output.weight"] == 0


def test_the_state_dict_is_that_of_the_plain_model(digits):
    model = Model()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert model.network.state_dict().keys() == Net().state_dict().keys()

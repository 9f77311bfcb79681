"""A round inside a fit against a fresh fit of the same masked weights, bit for bit."""

import copy

import pytest
import torch
from conftest import Model, Net, Spy, copied, loaders, quiet_trainer, same_bits
from lightning.pytorch import Callback, LightningModule, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_lottery import LotteryTicketCallback


class KeepMasked(Callback):
    """Masks by hand, so that the package is not asked about itself."""

    def __init__(self, masks: dict[str, Tensor]) -> None:
        self.masks = masks

    def on_after_backward(self, trainer, pl_module):
        for name, parameter in pl_module.named_parameters():
            if name in self.masks and parameter.grad is not None:
                parameter.grad[~self.masks[name]] = 0

    def on_train_batch_end(self, trainer, pl_module, *_):
        with torch.no_grad():
            for name, parameter in pl_module.named_parameters():
                if name in self.masks:
                    assert not parameter[~self.masks[name]].any(), "a pruned weight has moved"


class Dropout(Net):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.1, self.training)


CASES = {
    "plain": ({}, {}, {}),
    "cycle": ({"scheduler": "cycle"}, {}, {}),
    "plateau": ({"scheduler": "plateau"}, {}, {}),
    "adam, accumulation, clipping": (
        {"optimizer": "adam"},
        {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5},
        {},
    ),
    "bf16": ({}, {"precision": "bf16-mixed"}, {}),
    "bf16-true": ({"optimizer": "adamw"}, {"precision": "bf16-true"}, {}),
    "workers": ({}, {}, {"num_workers": 2}),
    "persistent workers": ({"scheduler": "cycle"}, {}, {"num_workers": 1, "persistent_workers": True}),
    "reload": ({"scheduler": "step"}, {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 3}, {}),
    "steps": ({}, {"max_epochs": -1, "max_steps": 11}, {}),
    "middle of an epoch": ({}, {"val_check_interval": 0.5}, {}),
    "limits": ({}, {"limit_train_batches": 3, "limit_val_batches": 1}, {}),
    "overfit": ({}, {"overfit_batches": 2}, {}),
    "no validation": ({}, {"limit_val_batches": 0}, {}),
    "dropout": ({"network": Dropout}, {}, {}),
}


@pytest.mark.parametrize("own_generator", [False, True], ids=["global generator", "own generator"])
@pytest.mark.parametrize("case", CASES)
def test_a_round_is_a_fresh_fit_of_the_same_masked_weights(digits, case, own_generator):
    model_options, trainer_options, loader_options = CASES[case]
    model_options = dict(model_options)
    network = model_options.pop("network", Net)()
    initial = copy.deepcopy(network)

    def data():
        generator = torch.Generator().manual_seed(5) if own_generator else None
        return loaders(digits, generator=generator, **loader_options)

    class DrawsBeforeTraining(Callback):
        """After configure_optimizers, which may have asked for the data, and before the first batch."""

        def on_fit_start(self, trainer, pl_module):
            torch.rand(5)

    def fit(network: nn.Module, *callbacks: Callback) -> LightningModule:
        seed_everything(3, verbose=False)
        callbacks = (*callbacks, DrawsBeforeTraining())
        model = Model(network, **model_options)
        quiet_trainer(**{"callbacks": list(callbacks), **trainer_options}).fit(model, *data())
        return model

    spy = Spy()
    lottery = LotteryTicketCallback(densities=[0.6, 0.2], verbose=False)
    model = fit(network, lottery, spy)
    assert [record.steps for record in lottery.records] == spy.steps
    assert spy.order[0] == spy.order[1] == spy.order[2]
    assert same_bits(copied(model), spy.ends[-1])
    for number in range(3):
        ticket = lottery.tickets[number]
        fresh = Model(copy.deepcopy(initial))
        ticket.apply(fresh)
        alone = Spy()
        fit(fresh.network, KeepMasked(ticket.masks), alone)
        assert alone.steps == [spy.steps[number]]
        assert alone.order == [spy.order[number]]
        assert same_bits(alone.ends[0], spy.ends[number])


def test_survivors_start_from_the_saved_weights_and_pruned_ones_are_zero(digits):
    network = Net()
    initial = {f"network.{name}": tensor for name, tensor in copied(network).items()}
    spy = Spy()
    lottery = LotteryTicketCallback(rounds=3, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, spy]).fit(Model(network), *loaders(digits))
    assert len(spy.starts) == 4
    for number, start in enumerate(spy.starts):
        masks = lottery.tickets[number].masks
        for name, tensor in start.items():
            expected = initial[name] if name not in masks else torch.where(masks[name], initial[name], 0)
            assert torch.equal(tensor, expected), name
        for name, mask in masks.items():
            assert not spy.ends[number][name][~mask].any()


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


def test_manual_optimization_with_bare_backward_and_two_optimizers(digits):
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


def test_data_order_goes_on_without_same_data_order(digits):
    orders = {}
    for same in (True, False):
        spy = Spy()
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, same_data_order=same, verbose=False)
        quiet_trainer(callbacks=[lottery, spy]).fit(Model(), *loaders(digits))
        orders[same] = [tuple(order) for order in spy.order]
    assert len(set(orders[True])) == 1
    assert len(set(orders[False])) == 3
    assert {tuple(sorted(order)) != () for order in orders[False]} == {True}


def test_random_numbers_of_a_train_dataloader_hook_return_too(digits):
    class OwnData(Model):
        def train_dataloader(self):
            images, labels = digits
            chosen = torch.randperm(500)[:200]  # drawn anew at every call
            return DataLoader(torch.utils.data.TensorDataset(images[chosen], labels[chosen]), 32, shuffle=True)

        def val_dataloader(self):
            return loaders(digits)[1]

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, spy]).fit(OwnData(scheduler="cycle"))
    assert spy.order[0] == spy.order[1] == spy.order[2]


def test_non_persistent_buffers_and_frozen_flags_return(digits):
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, images):
            self.calls += self.training
            self.hidden.bias.requires_grad_(False)
            return super().forward(images)

    class Watch(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append((float(pl_module.network.calls), pl_module.network.hidden.bias.requires_grad))

    seen: list[tuple[float, bool]] = []
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Watch()], num_sanity_val_steps=0)
    trainer.fit(Model(Counting()), *loaders(digits))
    assert seen == [(0.0, True)] * 3


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


def test_a_layer_that_is_emptied_is_named(digits):
    class Faint(Net):
        def __init__(self):
            super().__init__()
            nn.init.uniform_(self.output.weight, -1e-9, 1e-9)
            self.output.weight.requires_grad_(False)

    lottery = LotteryTicketCallback(densities=[0.5], verbose=False)
    with pytest.warns(UserWarning, match="round_01 keeps no weight of 'network.output.weight'"):
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(Model(Faint()), *loaders(digits))
    assert lottery.tickets[1].layer_densities()["network.output.weight"] == 0


def test_a_plain_state_dict_comes_out(digits):
    model = Model()
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert model.network.state_dict().keys() == Net().state_dict().keys()

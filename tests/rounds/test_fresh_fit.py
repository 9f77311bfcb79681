"""A round is bit-equal to a fresh fit of the same masked weights."""

import copy

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, seed_everything
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric

from lightning_lottery import LotteryTicketCallback, TicketCallback
from tests.helpers.fits import Model, Net, Spy, copied, loaders, make_optimizer, quiet_trainer, same_bits
from tests.helpers.rounds import KeepMasked


class Dropout(Net):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), 0.1, self.training)


class Drifting(Net):
    """Extra state, a buffer created in the first batch, and a metric of the best value so far."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", None)
        self.best, self.calls = MaxMetric(), 0

    def get_extra_state(self):
        return {"calls": self.calls}

    def set_extra_state(self, state):
        self.calls = state["calls"]

    def forward(self, images):
        self.calls += self.training
        if self.mean is None:
            self.mean = images.mean(0)
        self.best(images.sum())
        return super().forward(images - self.mean) / (1 + self.calls) * self.best.compute().log()


class SameOptimizer(Model):
    """Creates optimizer and scheduler once, and returns the same objects each time."""

    def configure_optimizers(self):
        if not hasattr(self, "made"):
            optimizer = make_optimizer("sgd", self.parameters())
            self.made = [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]
        return self.made


class LeftGradients(Model):
    """Steps every third batch, and leaves gradients of the last batches."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx))
        if batch_idx % 3 == 2:
            self.optimizers().step()
            self.optimizers().zero_grad()


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
    "drifting state": ({"network": Drifting}, {"num_sanity_val_steps": 0}, {}),
    "the same optimizer object": ({"model": SameOptimizer}, {}, {}),
    "gradients left behind": ({"model": LeftGradients}, {"limit_val_batches": 0}, {}),
    "no sanity check": ({"scheduler": "cycle"}, {"num_sanity_val_steps": 0}, {"num_workers": 1}),
}


@pytest.mark.parametrize("own_generator", [False, True], ids=["global generator", "own generator"])
@pytest.mark.parametrize("case", CASES)
def test_a_round_is_a_fresh_fit_of_the_same_masked_weights(digits, case, own_generator):
    model_options, trainer_options, loader_options = CASES[case]
    model_options = dict(model_options)
    network, kind = model_options.pop("network", Net)(), model_options.pop("model", Model)
    initial = copy.deepcopy(network)

    def data():
        generator = torch.Generator().manual_seed(5) if own_generator else None
        return loaders(digits, generator=generator, **loader_options)

    class DrawsBeforeTraining(Callback):
        """After configure_optimizers, which may have requested the data, and before the first batch."""

        def on_fit_start(self, trainer, pl_module):
            torch.rand(5)

    def fit(network: nn.Module, *callbacks: Callback) -> LightningModule:
        seed_everything(3, verbose=False)
        callbacks = (*callbacks, DrawsBeforeTraining())
        model = kind(network, **model_options)
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
        again = Spy()
        fit(copy.deepcopy(initial), TicketCallback(ticket, verbose=False), again)
        assert again.order == alone.order
        assert same_bits(again.starts[0], spy.starts[number])
        assert same_bits(again.ends[0], spy.ends[number])


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


def test_generators_continue_without_same_data_order(digits):
    orders = {}
    for same in (True, False):
        spy = Spy()
        lottery = LotteryTicketCallback(rounds=2, amount=0.5, same_data_order=same, verbose=False)
        quiet_trainer(callbacks=[lottery, spy]).fit(Model(), *loaders(digits))
        orders[same] = [tuple(order) for order in spy.order]
    assert len(set(orders[True])) == 1
    assert len(set(orders[False])) == 3


def test_random_numbers_in_a_train_dataloader_hook_are_rewound(digits):
    class OwnData(Model):
        def train_dataloader(self):
            images, labels = digits
            chosen = torch.randperm(500)[:200]  # drawn again in every call
            return DataLoader(torch.utils.data.TensorDataset(images[chosen], labels[chosen]), 32, shuffle=True)

        def val_dataloader(self):
            return loaders(digits)[1]

    spy = Spy()
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=False)
    quiet_trainer(callbacks=[lottery, spy]).fit(OwnData(scheduler="cycle"))
    assert spy.order[0] == spy.order[1] == spy.order[2]


@pytest.mark.parametrize("sanity_steps", [0, 2])
@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("reload", [0, 1])
def test_loaders_created_in_hooks_with_their_own_random_numbers(digits, sanity_steps, own_generator, reload):
    """Every round sees the order, and the validation images, of a fresh fit."""

    class OwnData(Model):
        def train_dataloader(self):
            generator = torch.Generator().manual_seed(5) if own_generator else None
            return loaders(digits, generator=generator)[0]

        def val_dataloader(self):
            images, labels = digits
            chosen = torch.randperm(1000)[:100]  # other images at every call
            data = torch.utils.data.TensorDataset(images[chosen], labels[chosen])
            return DataLoader(data, 50, num_workers=1, persistent_workers=True)

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            if not self.trainer.sanity_checking:
                seen[-1].append(int(batch[0].double().sum() * 1e6))

        def on_train_start(self):
            seen.append([])

    def fit(network, *callbacks):
        seed_everything(3, verbose=False)
        options = {"num_sanity_val_steps": sanity_steps, "reload_dataloaders_every_n_epochs": reload}
        quiet_trainer(callbacks=list(callbacks), **options).fit(OwnData(network))

    network, seen = Net(), []
    initial, spy = copy.deepcopy(network), Spy()
    lottery = LotteryTicketCallback(densities=[0.6, 0.2], verbose=False)
    fit(network, lottery, spy)
    assert seen[0] == seen[1] == seen[2]
    for number in range(3):
        fresh, alone = Model(copy.deepcopy(initial)), Spy()
        lottery.tickets[number].apply(fresh)
        fit(fresh.network, KeepMasked(lottery.tickets[number].masks), alone)
        assert alone.order == [spy.order[number]]
        assert same_bits(alone.ends[0], spy.ends[number])
    assert all(order == seen[0] for order in seen)


def test_non_persistent_buffers_and_frozen_flags_are_rewound(digits):
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

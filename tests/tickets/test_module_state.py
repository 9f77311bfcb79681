import copy

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torchmetrics import MaxMetric, MetricCollection, MetricTracker
from torchmetrics.classification import MulticlassAccuracy, MulticlassPrecision, MulticlassRecall

from lightning_lottery import LotteryTicketCallback
from lightning_lottery.tickets.module_state import ModuleState
from tests.helpers.fits import Model, loaders, quiet_trainer


def test_everything_outside_a_ticket_is_rewound():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    module.register_buffer("cache", torch.zeros(3), persistent=False)
    module.register_buffer("later", None)
    module[1].eval()
    state = ModuleState.of(module)

    for _ in range(2):  # the second time shows whether saved values share memory with the module
        module.cache = torch.ones(5)  # it has grown
        module.later = torch.ones(2)
        module.register_buffer("new", torch.ones(1))
        module[0].weight.requires_grad_(False)
        module.train()
        state.restore(module)

        assert torch.equal(module.cache, torch.zeros(3))
        assert module.later is None
        assert not hasattr(module, "new")
        assert module[0].weight.requires_grad
        assert not module[1].training
        assert module.training
        module.cache += 1
        state.restore(module)
        assert torch.equal(module.cache, torch.zeros(3))


def test_buffers_that_keep_their_shape_stay_the_same_objects():
    module = nn.BatchNorm1d(3)
    state, before = ModuleState.of(module), module.running_mean
    module(torch.rand(4, 3))
    state.restore(module)
    assert module.running_mean is before
    assert not module.running_mean.any()


def test_extra_state_is_rewound():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = [0]

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    module = nn.Sequential(Counting())
    state = ModuleState.of(module)
    for _ in range(2):
        module[0].seen.append(1)
        state.restore(module)
        assert module[0].seen == [0]


def test_metrics_are_rewound():
    module = nn.ModuleDict({"best": MaxMetric()})
    module["best"].update(0.25)
    state, fresh = ModuleState.of(module), copy.deepcopy(module["best"])
    module["best"].update(0.75)
    assert module["best"].compute() == 0.75
    state.restore(module)
    assert module["best"].compute() == fresh.compute() == pytest.approx(0.25)
    assert module["best"].update_count == fresh.update_count


def test_layers_and_metrics_added_during_training_are_removed_by_a_rewind(digits):
    class Tracking(Model):
        """Keeps the best value of the training, and a list of all values."""

        def __init__(self):
            super().__init__()
            self.tracker = MetricTracker(MulticlassAccuracy(10), maximize=True)
            self.same, self.history = self.network, nn.ModuleList()

        def on_validation_epoch_start(self):
            self.tracker.increment()
            self.history.append(nn.Identity())

        def validation_step(self, batch, batch_idx):
            self.tracker.update(self.network(batch[0]).argmax(1), batch[1])

        def on_validation_epoch_end(self):
            self.log("best", float(self.tracker.best_metric()), prog_bar=False)

    seen = []

    class Peek(Callback):
        def on_train_start(self, trainer, pl_module):
            seen.append((len(pl_module.tracker), len(pl_module.history), pl_module.same is pl_module.network))

        def on_train_end(self, trainer, pl_module):
            own = [float(metric.compute()) for metric in list(pl_module.tracker)]
            assert trainer.callback_metrics["best"] == pytest.approx(max(own))

    lottery = LotteryTicketCallback(rounds=2, amount=0.9, monitor="best", mode="max", verbose=False)
    trainer = quiet_trainer(callbacks=[lottery, Peek()], num_sanity_val_steps=0)
    trainer.fit(Tracking(), *loaders(digits))
    assert seen == [(1, 0, True)] * 3  # the metric that the others are copies of


def test_parameters_added_during_training_are_removed_by_a_rewind():
    module = nn.Module()
    module.layer = nn.Linear(2, 2)
    module.items, module.named = nn.ParameterList([torch.ones(1)]), nn.ParameterDict({"a": torch.ones(1)})
    state, names = ModuleState.of(module), list(module.state_dict())
    module.scale = nn.Parameter(torch.ones(3))
    module.alias = module.layer.weight
    module.layer.register_parameter("gain", nn.Parameter(torch.ones(2)))
    module.layer.register_buffer("steps", torch.ones(2))
    module.items.extend([torch.ones(2), torch.ones(3)])
    module.named["b"] = torch.ones(2)
    state.restore(module)
    assert set(module.state_dict()) == {*names, "alias"}
    assert (len(module.items), list(module.named), [p.shape for p in module.items]) == (1, ["a"], [(1,)])
    module.items.append(torch.zeros(5))
    assert [p.numel() for p in module.items] == [1, 5], "the list works on"


def test_a_metric_collection_is_rewound_with_its_groups():
    def collection():
        return MetricCollection({"a": MulticlassAccuracy(3), "b": MulticlassPrecision(3)})

    module = nn.ModuleDict({"scores": collection()})
    state = ModuleState.of(module)
    guesses, labels = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])
    module["scores"].update(guesses, labels)
    module["scores"].add_metrics({"c": MulticlassRecall(3)})
    module["scores"].update(guesses, labels)
    state.restore(module)
    module["scores"].update(guesses, labels)
    fresh = collection()
    fresh.update(guesses, labels)
    assert module["scores"].compute() == fresh.compute()


def test_layers_that_were_removed_while_training_are_named():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    state = ModuleState.of(module)
    del module[1]
    with pytest.warns(UserWarning, match=r"layers \['1'\] were removed"):
        state.restore(module)

"""Optimizers and LightningModules with unusual steps."""

import copy
import warnings
from collections import OrderedDict

import pytest
import torch
from torch import nn

from lightning_lottery import LotteryTicketCallback, TrainingError
from tests.helpers.fits import Model, Net, Spy, Uncounted, loaders, quiet_trainer, same_bits
from tests.helpers.rounds import monitoring, rounds


class Lookahead(torch.optim.Optimizer):
    """Wraps an optimizer like many projects: without ``Optimizer.__init__``, and with its own step."""

    def __init__(self, base, with_hooks):
        self.base, self.param_groups, self.state, self.defaults = (
            base,
            base.param_groups,
            base.state,
            base.defaults,
        )
        if with_hooks:  # never called, since PyTorch has not wrapped this step
            self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks = OrderedDict(), OrderedDict()
        self.slow = [[p.detach().clone() for p in group["params"]] for group in self.param_groups]
        self.count = 0

    def step(self, closure=None):
        loss = self.base.step(closure)
        self.count += 1
        if self.count % 3 == 0:
            for group, slow in zip(self.param_groups, self.slow, strict=True):
                for fast, old in zip(group["params"], slow, strict=True):
                    old.add_(fast.detach() - old, alpha=0.5).add_(1e-3)  # of all weights, pruned ones too
                    fast.data.copy_(old)
        return loss

    def zero_grad(self, set_to_none=True):
        self.base.zero_grad(set_to_none)

    def state_dict(self):
        return self.base.state_dict()

    def load_state_dict(self, state):
        self.base.load_state_dict(state)


@pytest.mark.parametrize("with_hooks", [True, False])
@pytest.mark.parametrize("scheduler", [True, False])
def test_an_optimizer_that_calls_no_hooks(digits, with_hooks, scheduler):
    class Wrapped(Model):
        def configure_optimizers(self):
            optimizer = Lookahead(torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9), with_hooks)
            if scheduler:
                return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]
            return optimizer

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Seems like `optimizer.step")
        run = rounds(digits, Wrapped())
    run.check(steps=14)
    for optimizer in run.trainer.optimizers:
        assert "masked_step" not in str(vars(optimizer).get("step", ""))


@pytest.mark.parametrize("backward", ["manual_backward", "backward"])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_steps_that_lightning_does_not_count(digits, backward, kind):
    class Past(Model):
        automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers(use_pl_optimizer=False)
            optimizer.zero_grad()
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss) if backward == "manual_backward" else loss.backward()
            optimizer.step()

    network = Net()
    spies = [Spy(), Spy()]
    lotteries = [monitoring(dirpath=name) for name in ("past", "plain")]
    for model, spy, lottery in zip(
        (Past(copy.deepcopy(network), kind), Model(network, kind)), spies, lotteries, strict=True
    ):
        trainer = quiet_trainer(callbacks=[lottery, spy])
        torch.manual_seed(3)
        trainer.fit(model, *loaders(digits))
    assert [record.steps for record in lotteries[0].records] == [14, 14, 14]
    for first, second in zip(spies[0].ends, spies[1].ends, strict=True):
        assert same_bits(first, second)
    assert lotteries[0].records[1].metrics == lotteries[1].records[1].metrics


def test_a_rewind_point_in_uncounted_steps_is_refused(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="20 steps", verbose=False)
    trainer = quiet_trainer(callbacks=[lottery], max_epochs=5)
    with pytest.raises(TrainingError, match=r"given in steps.*rewind='2 epochs'"):
        trainer.fit(Uncounted(), *loaders(digits))
    assert trainer.current_epoch == 0
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, rewind="1 epoch", verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=2).fit(Uncounted(), *loaders(digits))
    assert [record.steps for record in lottery.records] == [14, 7]


class Growing(Model):
    """Adds a layer in its first epoch, known only to the optimizer."""

    def on_train_epoch_start(self):
        if not hasattr(self, "more"):
            self.more = nn.Linear(10, 10)
            self.trainer.optimizers[0].add_param_group({"params": self.more.parameters()})


def test_layers_added_during_training_are_named(digits):
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, verbose=False)
    model = Growing()
    trainer = quiet_trainer(callbacks=[lottery])
    with pytest.warns(UserWarning, match=r"\['more.weight'\] were added.*not pruned.*in configure_model") as seen:
        trainer.fit(model, *loaders(digits))
    assert len([w for w in seen if "were added" in str(w.message)]) == 1, "once, and not in later rounds"
    assert "more.weight" not in lottery.tickets[1].masks
    assert [record.steps for record in lottery.records] == [14, 14]

"""The hint about rewinding to initialisation: where it appears, and that it quotes the published numbers."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from lightning_lottery import LearningRate, LotteryTicketCallback, Random, Ticket
from lightning_lottery.preflight.hints import rewinding_hint
from tests.helpers.fits import Model, loaders, quiet_trainer, two_layers

LARGE = partial(SGD, lr=0.1)


def hint(module, optimizer=LARGE, schedule=None, **arguments):
    settings = LotteryTicketCallback(**{"rounds": 1, "amount": 0.5, **arguments}).settings
    made = optimizer(module.parameters())
    if schedule is not None:
        schedule(made)
    return rewinding_hint(module, [made], settings)


def test_the_hint_quotes_what_was_published():
    """Renda et al. 2020, ResNet-20 with 21 % of its weights, from the authors' results."""
    line = hint(Model())
    assert "\n" not in line
    for number in ("89.05%", "91.74%", "91.90%", "91.71%", "(here 0.1)", "21%", "arXiv:2003.02389"):
        assert number in line


def normed(layer):
    return nn.Sequential(nn.Linear(4, 4), layer, nn.Linear(4, 4))


class RMSNorm(nn.Module):
    """Another library's normalisation, known by its name."""


class PowerNormal(nn.Module):
    """Not a normalisation."""


def test_networks_with_normalisation():
    layers = [nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.LayerNorm(4), nn.GroupNorm(2, 4), RMSNorm()]
    assert all(hint(normed(layer)) for layer in layers)
    assert not any(
        hint(normed(layer)) for layer in (nn.ReLU(), nn.utils.weight_norm(nn.Linear(4, 4)), PowerNormal())
    )
    for norm in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        assert hint(normed(norm(nn.Linear(4, 4)))) is None, "it normalises weights, not activations"


def test_sharded_weights_support_no_other_rule(monkeypatch):
    monkeypatch.setattr("lightning_lottery.preflight.hints.is_sharded", lambda parameter: True)
    assert hint(Model()) is None


def test_large_learning_rates_of_sgd():
    assert hint(Model(), partial(SGD, lr=0.0999)) is None
    assert "(here 0.4)" in hint(Model(), partial(SGD, lr=torch.tensor(0.4)))
    assert hint(Model(), partial(Adam, lr=0.1)) is None
    groups = [{"params": [nn.Parameter(torch.ones(2, 2))], "lr": rate} for rate in (0.01, 0.2)]
    settings = LotteryTicketCallback(rounds=1, amount=0.5).settings
    assert "(here 0.2)" in rewinding_hint(Model(), [Adam(Model().parameters()), SGD(groups)], settings)


def test_schedules_that_warm_up():
    def warm_up(optimizer):
        LambdaLR(optimizer, lambda step: 0.01)

    assert hint(Model(), schedule=warm_up)
    assert hint(Model(), partial(SGD, lr=0.01), schedule=lambda o: OneCycleLR(o, max_lr=0.3, total_steps=10))
    assert not hint(Model(), partial(SGD, lr=0.01), schedule=lambda o: OneCycleLR(o, max_lr=0.03, total_steps=10))


def test_only_rewinding_to_initialisation():
    model = Model()
    for rewind in ("3 steps", "6.6%", LearningRate()):
        assert hint(model, rewind=rewind) is None
    assert hint(model, rewind="init")
    assert hint(model, start=Ticket.from_model(model)) is None
    assert hint(model, criterion=Random(), prune_at_init=True) is None


@pytest.mark.parametrize(
    ("model", "verbose", "times"), [(Model, True, 1), (Model, False, 0), (two_layers, True, 0)]
)
def test_a_run_shows_the_hint_once(digits, capsys, model, verbose, times):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, verbose=verbose)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model(), *loaders(digits))
    assert capsys.readouterr().out.count("Hint: ") == times
    if times:
        quiet_trainer(callbacks=[lottery], max_epochs=1).fit(
            model(), *loaders(digits), ckpt_path=lottery.run_folder
        )
        assert "Hint: " not in capsys.readouterr().out, "not again when the run is resumed"

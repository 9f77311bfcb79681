"""Prunings inside a fit: what they prune, and that using data and loss has no side effects."""

import copy
import shutil
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lightning_lottery import (
    ERK,
    SNIP,
    Block,
    Channels,
    ConfigurationError,
    Criterion,
    EarlyBird,
    Global,
    LargeFinalSameSign,
    Layerwise,
    LotteryTicketCallback,
    MagnitudeIncrease,
    Movement,
    NofM,
    SynFlow,
    Taylor,
    TrainingError,
)
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.looking import Looking, rounds
from tests.helpers.resuming import Dropout, Manual
from tests.helpers.rounds import PRUNED, Rounds, ranked


def test_scores_are_those_of_weights_at_the_end_and_start_of_the_round(digits):
    for criterion, formula in [
        (Movement(), lambda end, start: (end - start).abs()),
        (MagnitudeIncrease(), lambda end, start: end.abs() - start.abs()),
        (LargeFinalSameSign(), lambda end, start: torch.where(end.sign() == start.sign(), end.abs(), 0.0)),
        (torch.square, lambda end, start: end.square()),
    ]:
        done = rounds(digits, criterion=criterion)
        for number in (0, 1):
            before, after = done.lottery.tickets[number].masks, done.lottery.tickets[number + 1].masks
            scores = {n: formula(done.spy.ends[number][n], done.initial[n]) for n in PRUNED}
            alive = sum(int(mask.sum()) for mask in before.values())
            expected = ranked(scores, before, round(0.5 * alive))
            assert all(torch.equal(after[n], expected[n]) for n in PRUNED), criterion


def test_snip_takes_the_loss_on_the_fit_s_own_first_batches(digits):
    """Compared with autograd on a separate network. Nothing is shuffled, so the first batches are known."""
    lottery = LotteryTicketCallback(densities=[0.3], criterion=SNIP(batches=3), prune_at_init=True, verbose=False)
    model = Model(Net())
    network = copy.deepcopy(model.network)
    train, val = loaders(digits, shuffle=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, train, val)
    gradients = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for images, labels in list(train)[:3]:
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        for name, parameter in network.named_parameters():
            gradients[name] += parameter.grad / 3
    names = {name: name.removeprefix("network.") for name in PRUNED}
    scores = {n: (network.get_parameter(short).detach() * gradients[short]).abs() for n, short in names.items()}
    dense = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    total = sum(score.numel() for score in scores.values())
    expected = ranked(scores, dense, total - round(0.3 * total))
    assert all(torch.equal(lottery.tickets[1].masks[name], expected[name]) for name in PRUNED)
    assert [(r.round, r.kept) for r in lottery.records] == [(1, round(0.3 * total))]


def test_pruning_at_initialisation_trains_no_dense_round(digits):
    lottery = LotteryTicketCallback(rounds=2, amount=0.5, prune_at_init=True, verbose=False)
    model = Model()
    initial, spy = copied(model), Rounds(model, lambda: loaders(digits), lottery=lottery).fit().spy
    assert len(spy.ends) == 2
    sizes = {n: initial[n].abs() for n in PRUNED}
    dense = {n: torch.ones_like(size, dtype=torch.bool) for n, size in sizes.items()}
    total = sum(size.numel() for size in sizes.values())
    expected = ranked(sizes, dense, round(0.5 * total))
    assert all(torch.equal(lottery.tickets[1].masks[name], expected[name]) for name in PRUNED)
    for start, ticket in zip(spy.starts, (lottery.tickets[1], lottery.tickets[2]), strict=True):
        assert all(torch.equal(start[n], initial[n] * ticket.masks[n]) for n in PRUNED)
    with pytest.raises(ConfigurationError, match="prune_at_init=True trains none"):
        LotteryTicketCallback.smallest_matching(lottery)


def test_synflow_prunes_in_a_hundred_steps_without_data(digits):
    """Compared with a separate loop: forward with magnitudes, score, prune a part, repeat."""
    lottery = LotteryTicketCallback(densities=[0.05], criterion=SynFlow(20), prune_at_init=True, verbose=False)
    model = Looking(Net())
    network = copy.deepcopy(model.network).double().eval()
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    for parameter in network.parameters():
        parameter.data.abs_()
    names = {name: name.removeprefix("network.") for name in PRUNED}
    masks = {n: torch.ones_like(network.get_parameter(short), dtype=torch.bool) for n, short in names.items()}
    total = left = sum(mask.numel() for mask in masks.values())
    for step in range(1, 21):
        network.zero_grad()
        network(torch.ones(1, 784).double()).sum().backward()
        parameters = {name: network.get_parameter(short) for name, short in names.items()}
        scores = {name: parameter.detach() * parameter.grad for name, parameter in parameters.items()}
        keep = round(total * (round(0.05 * total) / total) ** (step / 20))
        masks = ranked(scores, masks, left - keep)
        left = keep
        for name, parameter in parameters.items():
            parameter.data *= masks[name]
    assert all(torch.equal(lottery.tickets[1].masks[name], masks[name]) for name in PRUNED)


@pytest.mark.parametrize(
    ("pattern", "scope", "exclude"),
    [
        (NofM(2, 4), Global(), ["network.convolution.*"]),
        (Channels(), Layerwise(), []),
        (Block(4, 4), ERK(), []),
    ],
)
def test_patterns_hold_in_training(digits, pattern, scope, exclude):
    lottery = LotteryTicketCallback(
        densities=[0.7, 0.5], pattern=pattern, scope=scope, exclude=exclude, verbose=False
    )
    done = Rounds(Model(), lambda: loaders(digits), lottery=lottery).fit()
    done.check_fresh()
    for name, mask in lottery.tickets[2].masks.items():
        assert torch.equal(pattern.mask(pattern.alive(mask), tuple(mask.shape)), mask), "units are whole"
        if isinstance(pattern, NofM):
            assert mask.view(mask.shape[0], -1, 4).sum(-1).eq(2).all()
        assert not done.spy.ends[-1][name][~mask].any()


def test_a_run_that_was_killed_while_scoring_before_round_1_resumes(digits, tmp_path):
    """The folder exists, but neither a ticket nor a record."""

    def fit(dirpath, resume=False, **options):
        torch.manual_seed(5)
        model = Looking(Dropout())
        lottery = LotteryTicketCallback(
            rounds=1, amount=0.5, criterion=SNIP(2), prune_at_init=True, dirpath=dirpath, verbose=False
        )
        trainer = quiet_trainer(callbacks=[lottery], **options)
        if resume:
            torch.manual_seed(77)
        trainer.fit(model, *loaders(digits), ckpt_path=lottery.resume(trainer) if resume else None)
        return lottery, copied(model)

    whole, expected = fit(tmp_path / "whole")
    fit(tmp_path / "died")
    shutil.rmtree(tmp_path / "died" / "tickets")
    for name in ("rounds.jsonl", "last.pt"):
        (tmp_path / "died" / name).unlink()
    again, found = fit(tmp_path / "died", resume=True)
    assert again.records[1].masks_hash == whole.records[1].masks_hash
    assert same_bits(found, expected)


class NoLoss(Model):
    def training_step(self, batch, batch_idx):
        return None


class Iterating(Model):
    def training_step(self, dataloader_iter):
        return super().training_step(next(dataloader_iter)[0], 0)


@dataclass(frozen=True)
class Nowhere(Criterion):
    def score(self, context):
        return {name: weight.log() for name, weight in context.weights.items()}


@dataclass(frozen=True)
class Broken(Criterion):
    def score(self, context):
        return {}


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (Manual, {"criterion": SNIP()}, ConfigurationError, "with manual optimization there is none"),
        (
            NoLoss,
            {"criterion": Taylor(), "prune_at_init": True},
            TrainingError,
            "gives all weights the same score, 0",
        ),
        (Iterating, {"criterion": SNIP()}, ConfigurationError, "takes an iterator of batches"),
        (Model, {"criterion": Nowhere()}, ConfigurationError, "returns NaN for 'network.convolution.weight'"),
        (Model, {"stop": [EarlyBird()]}, ConfigurationError, "a round has max_epochs=2. Use a smaller window"),
        (Model, {"criterion": Broken()}, TrainingError, r"Broken\(\) must return scores for"),
        (Model, {"pattern": NofM()}, ConfigurationError, "'network.convolution.weight' has 1 inputs"),
        (Model, {"scope": Global(min_density={"x": 1.0})}, ConfigurationError, "'x', which matches no"),
    ],
)
def test_what_cannot_work_is_refused_before_training(digits, model, options, error, message):
    made = model()
    before = copied(made)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, dirpath="run", verbose=False, **options)
    with pytest.raises(error, match=message):
        quiet_trainer(callbacks=[lottery]).fit(made, *loaders(digits))
    assert same_bits(before, copied(made))
    assert len(lottery.records) == 0


def test_a_head_that_is_zero_before_training_is_accepted(digits):
    model = Model()
    nn.init.zeros_(model.network.output.weight)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, criterion=SNIP(), verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(model, *loaders(digits))
    assert len(lottery.records) == 2


@dataclass(frozen=True)
class Iterative(SNIP):
    """Scores repeatedly, like FORCE."""

    @property
    def iterations(self):
        return 5


def test_iterations_see_the_network_without_removed_weights(digits):
    masks, losses = [], []

    @dataclass(frozen=True)
    class Looking(Iterative):
        def score(self, context):
            masks.append({name: mask.clone() for name, mask in context.masks.items()})
            losses.append({name: weight.detach().clone() for name, weight in context.weights.items()})
            return super().score(context)

    lottery = LotteryTicketCallback(densities=[0.1], criterion=Looking(), prune_at_init=True, verbose=False)
    model = Model()
    before = copied(model)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert len(masks) == 1 + 5  # once before training, as a check
    for alive, weights in zip(masks[1:], losses[1:], strict=True):
        for name, mask in alive.items():
            assert torch.equal(weights[name], torch.where(mask, before[name], 0))
    ticket = lottery.tickets[1]
    assert all(torch.equal(w, before[n] * ticket.masks[n]) for n, w in ticket.weights.items() if n in ticket.masks)


def test_a_function_that_works_in_place_does_not_change_the_network(digits):
    model = Model()
    before = copied(model)
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, criterion=lambda w: w.abs_(), verbose=False)
    quiet_trainer(callbacks=[lottery], max_epochs=1).fit(model, *loaders(digits))
    assert all(torch.equal(lottery.tickets[0].weights[name], before[name]) for name in lottery.tickets[0].masks)

"""Searches that start from a ticket."""

import json

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn

from lightning_lottery import (
    SNIP,
    Channels,
    ConfigurationError,
    LotteryTicketCallback,
    Reinitialize,
    ShuffleMask,
    Ticket,
    TicketError,
)
from lightning_lottery.cli.main import main
from lightning_lottery.vision import Classifier, LeNet300100
from tests.helpers.fits import LateSpy, Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.scripts import short_fit
from tests.helpers.tickets import ticket_of


def search(digits, *callbacks, model=None, seed=3, **options):
    """A search with all its rounds."""
    lottery, spy = LotteryTicketCallback(verbose=False, **options), LateSpy()
    seed_everything(seed, verbose=False)
    model = Model(Net(), scheduler="cycle") if model is None else model
    quiet_trainer(callbacks=[lottery, *callbacks, spy]).fit(model, *loaders(digits))
    return lottery, spy


SIZES = {
    "amount": ({"rounds": 4, "amount": 0.4}, {"rounds": 2, "amount": 0.4}),
    "densities": ({"densities": [0.7, 0.5, 0.3, 0.1]}, {"densities": [0.3, 0.1]}),
}


@pytest.mark.parametrize("given_as", ["ticket", "path"])
@pytest.mark.parametrize("size", SIZES)
def test_a_search_from_a_ticket_is_the_rest_of_a_longer_search(digits, size, given_as):
    whole, rest = SIZES[size]
    longer, expected = search(digits, **whole)
    path = longer.run_folder / "tickets" / "round_02.safetensors"
    shorter, spy = search(digits, start=path if given_as == "path" else Ticket.load(path), **rest)
    for number in range(3):
        assert same_bits(shorter.tickets[number].masks, longer.tickets[number + 2].masks)
        assert same_bits(shorter.tickets[number].weights, longer.tickets[number + 2].weights)
        assert same_bits(spy.starts[number], expected.starts[number + 2])
        assert same_bits(spy.ends[number], expected.ends[number + 2])
        here, there = shorter.records[number], longer.records[number + 2]
        assert (here.kept, here.prunable, here.density) == (there.kept, there.prunable, there.density)
        assert here.kept_by_layer == there.kept_by_layer
        assert here.metrics == there.metrics


def test_the_target_density_is_met_to_the_weight(digits):
    start = ticket_of(Model(), density=0.5)
    lottery, _ = search(digits, start=start, rounds=2, target_density=0.1)
    assert [lottery.records[0].kept, lottery.records[2].kept] == [start.kept, round(0.1 * start.prunable)]
    ratio = (0.1 / start.density) ** 0.5
    assert lottery.records[1].density == pytest.approx(ratio * start.density, rel=1e-3)


def test_controls_stay_within_the_ticket(digits):
    start = ticket_of(Model(), density=0.5)
    lottery, _ = search(digits, start=start, densities=[0.2], controls=[ShuffleMask(), Reinitialize()])
    ticket, first = lottery.tickets[1], lottery.tickets[0]
    shuffled, fresh = (lottery.tickets[name][1] for name in ("shuffle_mask", "reinitialize"))
    assert same_bits(first.masks, start.masks)
    assert same_bits(fresh.masks, ticket.masks)
    for name, mask in shuffled.masks.items():
        assert not (mask & ~start.masks[name]).any(), "only survivors of round 0 have a value"
        assert int(mask.sum()) == int(ticket.masks[name].sum())
        assert not torch.equal(mask, ticket.masks[name])
        assert torch.equal(shuffled.weights[name], torch.where(mask, first.weights[name], 0))
        assert not torch.equal(fresh.weights[name], ticket.weights[name])
        assert torch.equal(fresh.weights[name] != 0, ticket.masks[name])
    assert [record.density for record in lottery.records] == pytest.approx(
        [start.density, 0.2, 0.2, 0.2], abs=1e-3
    )


def test_reinitialize_judges_the_survivors_alone(digits, recwarn):
    """The zeros of a sparse start are no reason to doubt that reset_parameters made the rest."""
    search(digits, start=ticket_of(Model(), density=0.3), densities=[0.2], controls=[Reinitialize()])
    assert not [str(w.message) for w in recwarn if "Reinitialize" in str(w.message)]


def test_a_later_rewind_point_is_reached_in_round_0(digits):
    start = ticket_of(Model(), density=0.5)
    lottery, spy = search(digits, start=start, densities=[0.2], rewind="5 steps")
    assert spy.began == [(0, 0), (0, 5)]
    for name, mask in lottery.tickets[1].masks.items():
        assert not (mask & ~start.masks[name]).any()
        assert not spy.starts[1][name][~mask].any()
    name = "network.hidden.weight"
    moved = spy.starts[1][name] != torch.where(lottery.tickets[1].masks[name], start.weights[name], 0)
    assert moved.any()


def test_pruning_at_initialisation_scores_the_weights_of_the_ticket(digits):
    start, model = ticket_of(Model(), density=0.5), Model()
    lottery, spy = search(digits, model=model, start=start, densities=[0.2], prune_at_init=True, criterion=SNIP())
    assert len(spy.starts) == 1
    for name, mask in lottery.tickets[1].masks.items():
        assert not (mask & ~start.masks[name]).any()
        assert torch.equal(spy.starts[0][name], torch.where(mask, start.weights[name], 0))


def test_whole_channels_are_removed_from_an_unstructured_ticket(digits):
    start = ticket_of(Model(), density=0.5)
    lottery, _ = search(digits, start=start, rounds=1, amount=0.5, pattern=Channels())
    for name, mask in lottery.tickets[1].masks.items():
        alive = mask.flatten(1).any(dim=1)
        expected = start.masks[name] & alive.view(-1, *[1] * (mask.dim() - 1))
        assert torch.equal(mask, expected)


def test_a_ticket_from_elsewhere_is_a_start(digits):
    model = Model()
    with torch.no_grad():
        model.network.hidden.weight[:, ::2] = 0
    start = Ticket.from_model(model)
    lottery, _ = search(digits, start=start, rounds=1, amount=0.2)
    assert [record.kept for record in lottery.records] == [start.kept, start.kept - round(0.2 * start.kept)]


@pytest.mark.parametrize("after", [3, 10])
def test_an_interrupted_search_resumes_bit_for_bit(digits, after, tmp_path):
    class Stop(Callback):
        steps = 0

        def on_train_batch_end(self, *_):
            self.steps += 1
            if self.steps == after:
                raise ZeroDivisionError

    start = ticket_of(Model(), density=0.5)
    options = {"start": start, "densities": [0.2], "rewind": "5 steps", "verbose": False}

    def fit(folder, *callbacks, resume=False, **others):
        seed_everything(3, verbose=False)
        lottery = LotteryTicketCallback(**{**options, **others}, dirpath=tmp_path / folder)
        model, trainer = Model(scheduler="cycle"), quiet_trainer(callbacks=[lottery, *callbacks])
        trainer.fit(model, *loaders(digits), ckpt_path=lottery.resume(trainer) if resume else None)
        return model, lottery

    expected, _ = fit("whole")
    with pytest.raises(ZeroDivisionError):
        fit("cut", Stop())
    with pytest.raises(ConfigurationError, match="start was"):
        fit("cut", resume=True, start=ticket_of(Model(), density=0.6))
    with pytest.raises(ConfigurationError, match="start was"):
        fit("cut", resume=True, start=None)
    resumed, lottery = fit("cut", resume=True)
    assert same_bits(copied(resumed), copied(expected))
    assert [record.density for record in lottery.records] == pytest.approx([start.density, 0.2], abs=1e-3)


def test_a_ticket_that_does_not_fit_is_named_before_training(digits):
    other = Net()
    other.output = nn.Linear(24, 3)
    model, spy = Model(other), LateSpy()
    before = copied(model)
    lottery = LotteryTicketCallback(rounds=1, amount=0.2, start=ticket_of(Model()))
    with pytest.raises(
        TicketError, match=r"'network.output.weight' has shape \(3, 24\) in the network and \(10, 24\)"
    ):
        quiet_trainer(callbacks=[lottery, spy]).fit(model, *loaders(digits))
    assert not spy.starts
    assert same_bits(copied(model), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["*.output.*"]}, r"pruned weights in 'network.output.weight' \(excluded\).*include="),
        ({"densities": [0.9], "rounds": None, "amount": None}, "Round 1 would keep .* prunable weights, after"),
    ],
)
def test_arguments_that_do_not_fit_the_ticket(digits, options, message):
    arguments = {"rounds": 1, "amount": 0.2, "start": ticket_of(Model(), density=0.5), **options}
    with pytest.raises(ConfigurationError, match=message):
        quiet_trainer(callbacks=[LotteryTicketCallback(**arguments)]).fit(Model(), *loaders(digits))


def test_starts_that_are_not_tickets():
    with pytest.raises(ConfigurationError, match="start=3 is neither a Ticket nor a path"):
        LotteryTicketCallback(rounds=1, amount=0.2, start=3)
    with pytest.raises(
        ConfigurationError, match=r"start='x.safetensors': The ticket file .*x.safetensors does not exist"
    ):
        LotteryTicketCallback(rounds=1, amount=0.2, start="x.safetensors")


def test_the_preview_counts_from_the_ticket():
    start = ticket_of(Model(), density=0.5)
    shown = LotteryTicketCallback(rounds=2, amount=0.5, start=start).preview(Model())
    (kept,) = shown.kept.values()
    assert kept[:2] == (start.kept, start.kept - round(0.5 * start.kept))
    assert f"0  {start.kept:,}   {start.density:.4f}\n" in str(shown)


def test_the_preview_checks_the_ticket():
    other = Net()
    other.output = nn.Linear(24, 3)
    with pytest.raises(TicketError, match=r"'network.output.weight' has shape"):
        LotteryTicketCallback(rounds=1, amount=0.5, start=ticket_of(Model())).preview(Model(other))
    lottery = LotteryTicketCallback(rounds=1, amount=0.5, start=ticket_of(Model()), exclude=["*.output.*"])
    with pytest.raises(ConfigurationError, match="which would not be prunable"):
        lottery.preview(Model())


class Teacher(Model):
    """A momentum teacher, which changes without gradients."""

    def __init__(self):
        super().__init__()
        self.teacher = Net()
        self.teacher.load_state_dict(self.network.state_dict())
        self.teacher.requires_grad_(False)

    def on_train_batch_end(self, *_):
        with torch.no_grad():
            for own, other in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
                own.lerp_(other, 0.1)


def test_a_momentum_teacher_is_recognised_in_a_sparse_round_0(digits):
    model = Teacher()
    start = Ticket.from_masks({n: m for n, m in ticket_of(Teacher()).masks.items() if "teacher" not in n}, model)
    lottery, _ = search(digits, model=model, start=start, rounds=1, amount=0.2)
    assert all(name.startswith("network.") for name in lottery.tickets[1].masks)
    assert lottery.records[1].kept == start.kept - round(0.2 * start.kept)


def test_a_search_from_a_ticket_in_yaml(tmp_path):
    start = ticket_of(Classifier(LeNet300100()), density=0.1)
    start.save(tmp_path / "ticket.safetensors")
    arguments = {"rounds": 1, "amount": 0.5, "start": "ticket.safetensors", "dirpath": "run"}
    main(short_fit({"class_path": "LotteryTicketCallback", "init_args": arguments}))
    lines = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text().splitlines()]
    assert [line["kept"] for line in lines] == [start.kept, start.kept - round(0.5 * start.kept)]
    assert json.loads((tmp_path / "run" / "lottery.json").read_text())["start"] == start.fingerprint

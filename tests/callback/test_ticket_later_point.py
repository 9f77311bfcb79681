"""TicketCallback: tickets whose rounds start at a later point of the schedule."""

import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    FineTune,
    LearningRate,
    LotteryTicketCallback,
    ShuffleMask,
    Ticket,
    TicketCallback,
    ToEpoch,
    ToStep,
)
from tests.helpers.fits import (
    LateSpy,
    Model,
    Net,
    loaders,
    quiet_trainer,
    same_bits,
)
from tests.helpers.tickets import assert_masked


class Dropout(Net):
    """Draws random numbers, and has a state besides the weights."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, images):
        self.calls += self.training
        return nn.functional.dropout(super().forward(images), 0.1, self.training) / (1 + 0.01 * self.calls)


LATE = {
    "within an epoch": ToStep(5),
    "between epochs": ToEpoch(1),
    "fresh optimizers": ToStep(9, optimizer="fresh"),
    "trained weights, later schedule": LearningRate(to="9 steps"),
    "trained weights": LearningRate(),
}


@pytest.mark.parametrize("scheduler", ["none", "cycle"])
@pytest.mark.parametrize("rule", LATE)
def test_a_ticket_in_its_run_folder_starts_where_its_round_has_started(digits, rule, scheduler):
    def fit(callback, network, seed):
        spy = LateSpy()
        seed_everything(seed, verbose=False)
        model = Model(network, optimizer="adam", scheduler=scheduler)
        quiet_trainer(callbacks=[callback, spy], max_epochs=3).fit(model, *loaders(digits))
        return spy

    lottery = LotteryTicketCallback(densities=[0.5, 0.2], rewind=LATE[rule], verbose=False)
    rounds = fit(lottery, Dropout(), seed=3)
    # Rounds that start at step 0 draw numbers of this fit, and later ones those of the run folder.
    seed = 3 if rule == "trained weights" else 4
    for number in (1, 2):
        alone = fit(TicketCallback(lottery.run_folder / f"tickets/round_0{number}.safetensors"), Dropout(), seed)
        assert alone.began == [rounds.began[number]]
        assert alone.order == [rounds.order[number]]
        assert same_bits(alone.starts[0], rounds.starts[number])
        assert same_bits(alone.ends[0], rounds.ends[number])


def test_a_fine_tuned_ticket_trains_alike_with_the_same_length_and_learning_rate(digits):
    class Constant(Model):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)

    lottery = LotteryTicketCallback(densities=[0.5, 0.2], rewind=FineTune(epochs=1, lr=0.02), verbose=False)
    rounds, alone = LateSpy(), LateSpy()
    seed_everything(3, verbose=False)
    quiet_trainer(callbacks=[lottery, rounds]).fit(Model(), *loaders(digits))
    callback = TicketCallback(lottery.run_folder / "tickets" / "round_02.safetensors")
    seed_everything(3, verbose=False)
    quiet_trainer(callbacks=[callback, alone], max_epochs=1).fit(Constant(), *loaders(digits))
    assert same_bits(alone.ends[0], rounds.ends[2])


def test_a_control_trains_alone_as_in_its_fit(digits):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", controls=[ShuffleMask()], verbose=False)
    rounds, alone = LateSpy(), LateSpy()
    quiet_trainer(callbacks=[lottery, rounds]).fit(Model(), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01_shuffle_mask.safetensors"
    quiet_trainer(callbacks=[TicketCallback(path), alone]).fit(Model(), *loaders(digits))
    assert same_bits(alone.ends[0], rounds.ends[2])


def test_without_its_run_folder_a_schedule_starts_at_step_0_and_a_line_says_so(digits, capsys):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01.safetensors"
    spies = []
    for ticket in (path, Ticket.load(path)):
        spies.append(LateSpy())
        quiet_trainer(callbacks=[TicketCallback(ticket), spies[-1]]).fit(Model(), *loaders(digits))
    assert [spy.began for spy in spies] == [[(0, 5)], [(0, 0)]]
    assert same_bits(spies[0].starts[0], spies[1].starts[0])
    with_schedule, alone = [line for line in capsys.readouterr().out.splitlines() if "Training a ticket" in line]
    size = f"{lottery.tickets[1].kept:,} of {lottery.tickets[1].prunable:,} prunable weights, density 0.3000."
    assert with_schedule == f"Training a ticket like round_01 in {path.parent.parent}, with its schedule: {size}"
    rule = "ToStep(step='5 steps', optimizer='restore')"
    assert f"from its starting values (of {rule}; the schedule starts at step 0): {size}" in alone


class Tuned(Model):
    """With any optimizer."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def configure_optimizers(self):
        return self.make(self.parameters())


SGD = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}


@pytest.mark.parametrize(
    ("make", "difference"),
    [
        (lambda p: torch.optim.SGD(p, **{**SGD, "lr": 0.003}), "lr was 0.1 and is now 0.003"),
        (lambda p: torch.optim.SGD(p, **{**SGD, "weight_decay": 0.3}), "weight_decay was 0.001 and is now 0.3"),
        (lambda p: torch.optim.Adam(p, lr=0.1), "momentum was 0.9 and is now not there"),
        (lambda p: torch.optim.SGD(list(p)[:2], **SGD), "params was 8 and is now 2"),
    ],
)
@pytest.mark.parametrize("rule", [ToStep(5), ToStep(5, optimizer="fresh")], ids=repr)
def test_another_optimizer_at_a_later_point_is_an_error_that_names_the_difference(digits, rule, make, difference):
    lottery = LotteryTicketCallback(densities=[0.3], rewind=rule, verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    path, spy = lottery.run_folder / "tickets" / "round_01.safetensors", LateSpy()
    with pytest.raises(ConfigurationError, match=rf"{difference}.*TicketCallback\(Ticket.load\(path\)\)"):
        quiet_trainer(callbacks=[TicketCallback(path), spy]).fit(Tuned(make), *loaders(digits))
    assert not spy.starts
    quiet_trainer(callbacks=[TicketCallback(Ticket.load(path))]).fit(Tuned(make), *loaders(digits))


def test_another_schedule_or_shorter_training_at_a_later_point_is_an_error(digits):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(scheduler="step"), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01.safetensors"

    def fit(scheduler="step", batch_size=32, **options):
        model = Model(scheduler=scheduler)
        quiet_trainer(callbacks=[TicketCallback(path)], **options).fit(
            model, *loaders(digits, batch_size=batch_size)
        )
        return model

    with pytest.raises(ConfigurationError, match="2 parameter groups and schedulers became 1"):
        fit("none")
    with pytest.raises(ConfigurationError, match="is now"):
        fit("cycle")
    for shorter in ({"max_steps": 5}, {"batch_size": 50}, {"limit_train_batches": 3, "max_epochs": 4}):
        with pytest.raises(ConfigurationError, match=r"started at step 5 in epoch 0, where .* train longer"):
            fit(**shorter)
    assert_masked(fit(fast_dev_run=True), Ticket.load(path))


def test_frozen_layers_stay_frozen_at_a_later_point(digits):
    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    ticket, model = lottery.tickets[1], Model()
    model.network.hidden.requires_grad_(False)
    callback = TicketCallback(lottery.run_folder / "tickets" / "round_01.safetensors")
    quiet_trainer(callbacks=[callback]).fit(model, *loaders(digits))
    assert not model.network.hidden.weight.requires_grad
    assert torch.equal(model.network.hidden.weight, ticket.weights["network.hidden.weight"])
    assert not torch.equal(model.network.output.weight, ticket.weights["network.output.weight"])


@pytest.mark.parametrize("late", [False, True])
def test_an_interrupted_fit_leaves_no_hooks(digits, late):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, *_):
            raise ZeroDivisionError

    lottery = LotteryTicketCallback(densities=[0.3], rewind="5 steps", verbose=False)
    quiet_trainer(callbacks=[lottery]).fit(Model(), *loaders(digits))
    path = lottery.run_folder / "tickets" / "round_01.safetensors"
    model = Model()
    trainer = quiet_trainer(callbacks=[TicketCallback(path if late else Ticket.load(path)), Fail()])
    kind = type(trainer.fit_loop)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(model, *loaders(digits))
    assert type(trainer.fit_loop) is kind
    assert "setup_optimizers" not in vars(trainer.strategy)
    quiet_trainer(max_epochs=1).fit(model, *loaders(digits))
    masks = lottery.tickets[1].masks
    assert all(model.get_parameter(name)[~mask].any() for name, mask in masks.items()), "a plain fit has no mask"

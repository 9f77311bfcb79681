"""TicketCallback: what it refuses, and what it warns about."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelPruning
from torch import nn

from lightning_lottery import (
    ConfigurationError,
    LotteryTicketCallback,
    Ticket,
    TicketCallback,
    TicketError,
    TrainingError,
)
from tests.helpers.fits import (
    LateSpy,
    Model,
    Net,
    copied,
    loaders,
    quiet_trainer,
    same_bits,
)
from tests.helpers.tickets import assert_masked, ticket_of


@pytest.mark.parametrize("order", [1, -1])
def test_a_search_and_a_ticket_in_one_trainer_are_refused_with_the_remedy(digits, order):
    both = [TicketCallback(ticket_of(Model())), LotteryTicketCallback(rounds=1, amount=0.5)]
    trainer = quiet_trainer(callbacks=both[::order])
    with pytest.raises(ConfigurationError, match=r"cannot be combined in one Trainer.*start=ticket"):
        trainer.fit(Model(), *loaders(digits))


def test_two_tickets_in_one_trainer_are_refused(digits):
    both = [TicketCallback(ticket_of(Model())), TicketCallback(ticket_of(Model(), density=0.5))]
    trainer = quiet_trainer()
    trainer.callbacks += both
    with pytest.raises(ConfigurationError, match="2 callbacks of type TicketCallback"):
        trainer.fit(Model(), *loaders(digits))


def test_another_callback_that_prunes_is_refused(digits):
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model())), ModelPruning("l1_unstructured")])
    with pytest.raises(ConfigurationError, match="ModelPruning cannot be combined with TicketCallback"):
        trainer.fit(Model(), *loaders(digits))


def test_a_ticket_that_does_not_fit_names_layers_and_shapes_before_training(digits):
    other = Net()
    other.hidden, other.output = nn.Linear(256, 30), nn.Linear(30, 10)
    model, spy = Model(other), LateSpy()
    before = copied(model)
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model())), spy])
    with pytest.raises(TicketError) as caught:
        trainer.fit(model, *loaders(digits))
    for part in (
        "'network.hidden.weight' has shape (30, 256)",
        "(24, 256) in the ticket",
        "'network.output.weight'",
    ):
        assert part in str(caught.value)
    assert not spy.starts
    assert same_bits(copied(model), before)
    with pytest.raises(TicketError, match=r"only the ticket has: 'network.convolution.weight'"):
        quiet_trainer(callbacks=[TicketCallback(ticket_of(Model()))]).validate(
            Model(nn.Linear(784, 10)), loaders(digits)[1]
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ticket": 3}, r"ticket=3 is neither a Ticket nor a path\. Write"),
        ({"ticket": "nowhere.safetensors"}, "ticket='nowhere.safetensors': The ticket file"),
        ({"weights": "signs"}, "weights='signs' must be 'ticket' or 'model'"),
        ({"verbose": 1}, "verbose=1 must be True or False"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        TicketCallback(**{"ticket": ticket_of(Model()), **arguments})


def test_paths_that_are_not_tickets(tmp_path):
    (tmp_path / "empty").touch()
    with pytest.raises(TicketError, match="it is empty"):
        TicketCallback(tmp_path / "empty")
    with pytest.raises(TicketError, match="is a folder, not a ticket file"):
        TicketCallback(tmp_path)
    torch.save({}, tmp_path / "checkpoint.ckpt")
    with pytest.raises(TicketError, match=r"Ticket\.from_state_dict\(path\)"):
        TicketCallback(str(tmp_path / "checkpoint.ckpt"))


def test_a_layer_without_weights_is_named(digits):
    ticket = ticket_of(Model())
    masks = {**ticket.masks, "network.output.weight": torch.zeros(10, 24, dtype=torch.bool)}
    with pytest.warns(UserWarning, match="the fit keeps no weight of 'network.output.weight'"):
        quiet_trainer(callbacks=[TicketCallback(Ticket(masks, ticket.weights))]).fit(Model(), *loaders(digits))


def test_a_hook_that_revives_weights_is_named(digits):
    class Revive(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.network.hidden.weight.data.add_(1)

    trainer = quiet_trainer(callbacks=[TicketCallback(ticket_of(Model())), Revive()])
    with pytest.raises(TrainingError, match=r"pruned weights of 'network.hidden.weight' are no longer zero"):
        trainer.fit(Model(), *loaders(digits))


def test_weights_that_are_written_at_the_end_are_masked_with_a_warning(digits):
    class Revive(Callback):
        def on_train_end(self, trainer, pl_module):
            pl_module.network.hidden.weight.data.add_(1)

    model, ticket = Model(), ticket_of(Model())
    trainer = quiet_trainer(callbacks=[TicketCallback(ticket), Revive()])
    with pytest.warns(UserWarning, match="At the end of the fit, pruned weights were not zero"):
        trainer.fit(model, *loaders(digits))
    assert_masked(model, ticket)

"""Tickets with the values of a trained network."""

import pytest
import torch
from torch import nn

from lightning_lottery import LotteryTicketCallback, Ticket, TicketError
from lightning_lottery.tickets import TicketSummary
from tests.helpers.fits import Model, Net, copied, loaders, quiet_trainer, same_bits
from tests.helpers.tickets import ticket_of


@pytest.fixture
def trained(digits):
    """A model after a search of one round, and its ticket."""
    lottery = LotteryTicketCallback(rounds=1, amount=0.6, verbose=False)
    trainer, model = quiet_trainer(callbacks=[lottery], max_epochs=1), Model()
    trainer.fit(model, *loaders(digits))
    trainer.save_checkpoint("trained.ckpt")
    return model, lottery.tickets[1]


def test_the_trained_network_becomes_a_ticket_with_the_same_provenance(trained, tmp_path):
    model, ticket = trained
    for source in (model, model.state_dict(), torch.load("trained.ckpt", weights_only=True), "trained.ckpt"):
        shipped = ticket.with_weights(source)
        assert same_bits(shipped.weights, copied(model))
        assert list(shipped.weights) == list(ticket.weights)
        assert same_bits(shipped.masks, ticket.masks)
        assert shipped.id == ticket.id
        assert shipped.provenance == {**ticket.provenance, "weights": "trained"}
    shipped.save("shipped.safetensors")
    other = Model()
    Ticket.load("shipped.safetensors").apply(other)
    assert same_bits(copied(other), copied(model))
    with torch.no_grad():
        model.network.hidden.weight.fill_(7)
    assert not torch.equal(shipped.weights["network.hidden.weight"], model.network.hidden.weight)


def test_a_network_trained_without_its_mask_is_refused(trained):
    model, ticket = trained
    with torch.no_grad():
        model.network.hidden.weight.add_(1)
    with pytest.raises(TicketError, match=r"not zero in 'network.hidden.weight': .* TicketCallback\(ticket\)"):
        ticket.with_weights(model)


def test_values_of_a_later_round_are_refused(digits):
    """Masks are nested, so that all pruned weights are zero in them, too."""
    lottery = LotteryTicketCallback(densities=[0.5, 0.45], verbose=False)
    trainer, model = quiet_trainer(callbacks=[lottery], max_epochs=1), Model()
    trainer.fit(model, *loaders(digits))
    assert lottery.tickets[2].with_weights(model).round == 2
    lost = lottery.records[1].kept - lottery.records[2].kept
    with pytest.raises(TicketError, match=rf"{lost} of {lottery.records[1].kept:,} survivors .* are zero"):
        lottery.tickets[1].with_weights(model)


def test_the_starting_values_are_not_trained_ones(trained):
    _, ticket = trained
    fresh = Model()
    ticket.apply(fresh)
    assert ticket.with_weights(fresh) is ticket
    assert TicketSummary.of(ticket).is_trained is False
    assert TicketSummary.of(ticket.with_weights("trained.ckpt")).is_trained is True
    carried = ticket.with_weights("trained.ckpt").transfer(Model()).ticket
    assert "weights" not in carried.provenance
    assert TicketSummary.of(carried).is_trained is None


def test_values_that_do_not_fit_are_all_named():
    ticket, other = ticket_of(Net()), Net()
    other.hidden, other.new = nn.Linear(256, 30), nn.Linear(2, 2)
    del other.output
    with pytest.raises(TicketError) as caught:
        ticket.with_weights(other)
    for part in (
        "only the ticket has: 'output.weight', 'output.bias'",
        "only the network has: 'new.weight', 'new.bias'",
        "'hidden.weight' has shape (30, 256) in the network and (24, 256) in the ticket",
    ):
        assert part in str(caught.value)


def test_buffers_that_got_their_shape_in_training_fit():
    """Such as those of the observers of quantisation-aware training."""
    before, after = nn.Linear(2, 2), nn.Linear(2, 2)
    before.register_buffer("observed", torch.zeros(()))
    after.register_buffer("observed", torch.ones(5))
    trained = ticket_of(before, density=1.0).with_weights(after)
    assert trained.weights["observed"].tolist() == [1] * 5


def test_what_has_no_values_is_refused(tmp_path):
    ticket = ticket_of(Net())
    ticket.save("ticket.safetensors")
    with pytest.raises(TicketError, match=r"is a ticket file. Write Ticket.load"):
        ticket.with_weights("ticket.safetensors")
    with pytest.raises(TicketError, match="Pass a state dict"):
        ticket.with_weights(3)
    with pytest.raises(FileNotFoundError, match=r"The checkpoint nowhere.ckpt does not exist"):
        ticket.with_weights("nowhere.ckpt")

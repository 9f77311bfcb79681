import pytest
import torch
from safetensors import safe_open
from torch import nn

from lightning_lottery import Ticket, TicketError
from tests.helpers.fits import Net, copied, same_bits
from tests.helpers.tickets import ticket_of


def test_weights_are_masked_and_share_no_memory_with_the_network():
    module = Net()
    before = copied(module)
    ticket = ticket_of(module)
    for name, mask in ticket.masks.items():
        assert torch.equal(ticket.weights[name], torch.where(mask, before[name], 0))
    assert ticket.weights.keys() == module.state_dict().keys()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.fill_(7)
    assert torch.equal(ticket.weights["norm.weight"], before["norm.weight"])


def test_counts_and_layer_densities():
    masks = {"a": torch.tensor([[True, False], [False, False]]), "b": torch.tensor([[True, True]])}
    ticket = Ticket(masks, {"a": torch.ones(2, 2), "b": torch.ones(1, 2), "c": torch.ones(3)})
    assert (ticket.kept, ticket.prunable, ticket.density) == (3, 6, 0.5)
    assert repr(ticket) == "Ticket(round=0, branch='ticket', density=0.5000, kept=3 of 6)"
    assert ticket.layer_densities() == {"a": 0.25, "b": 1.0}


def test_apply_copies_in_place_and_shares_no_memory():
    source, target = Net(), Net()
    ticket = ticket_of(source)
    parameters = dict(target.named_parameters())
    ticket.apply(target)
    assert dict(target.named_parameters()) == parameters, "parameters must stay the same objects"
    assert same_bits(copied(target), ticket.weights)
    with torch.no_grad():
        target.hidden.weight.fill_(1)
    assert not torch.equal(ticket.weights["hidden.weight"], target.hidden.weight)


def test_apply_refuses_another_network_and_changes_nothing():
    ticket = ticket_of(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)))
    other = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
    before = copied(other)
    with pytest.raises(TicketError, match=r"'1.weight' has shape \(4, 2\) in the network and \(2, 2\)"):
        ticket.apply(other)
    with pytest.raises(TicketError, match=r"only the network has: '2.weight', '2.bias'"):
        ticket.apply(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2)))
    with pytest.raises(TicketError, match=r"only the ticket has: '1.weight', '1.bias'"):
        ticket.apply(nn.Sequential(nn.Linear(3, 2)))
    assert same_bits(copied(other), before)


def test_masks_that_do_not_fit_are_refused():
    with pytest.raises(TicketError, match="mask for 'x', but no weight"):
        Ticket({"x": torch.ones(2, dtype=torch.bool)}, {"y": torch.ones(2)})
    with pytest.raises(TicketError, match="must be boolean"):
        Ticket({"x": torch.ones(2)}, {"x": torch.ones(2)})
    with pytest.raises(TicketError, match=r"of the weight's shape \(3,\)"):
        Ticket({"x": torch.ones(2, dtype=torch.bool)}, {"x": torch.ones(3)})


def test_density_does_not_count_what_follows(tmp_path):
    masks = {"w": torch.tensor([[True, True], [False, False]]), "b": torch.tensor([True, False])}
    weights = {"w": torch.ones(2, 2), "b": torch.ones(2), "other": torch.ones(3)}
    ticket = Ticket(masks, weights, following=["b"])
    assert (ticket.kept, ticket.prunable, ticket.density) == (2, 4, 0.5)
    assert ticket.layer_densities() == {"w": 0.5}
    assert ticket.weights["b"].tolist() == [1, 0]
    ticket.save(tmp_path / "ticket.safetensors")
    with safe_open(tmp_path / "ticket.safetensors", framework="pt") as file:
        assert file.metadata()["density"] == "0.5"
    again = Ticket.load(tmp_path / "ticket.safetensors")
    assert list(again.following) == ["b"]
    assert again.fingerprint == ticket.fingerprint
    with pytest.raises(TicketError, match=r"following contains \['other'\]"):
        Ticket(masks, weights, following=["other"])


def test_all_that_does_not_fit_is_named_with_both_shapes_and_the_remedy():
    ticket, other = ticket_of(Net()), Net()
    other.hidden, other.output, other.new = nn.Linear(256, 30), nn.Linear(30, 10), nn.Linear(2, 2)
    with pytest.raises(TicketError) as caught:
        ticket.check_fits(other)
    for part in (
        "only the network has: 'new.weight', 'new.bias'",
        "'hidden.weight' has shape (30, 256) in the network and (24, 256) in the ticket",
        "'output.weight' has shape (10, 30) in the network and (10, 24) in the ticket",
        "ticket.transfer(model).ticket",
    ):
        assert part in str(caught.value)


def test_fingerprints_differ_with_masks_and_with_weights():
    net = Net()
    ticket = ticket_of(net)
    assert ticket_of(net).fingerprint == ticket.fingerprint
    assert len(ticket.fingerprint) == 16
    others = [ticket_of(net, density=0.4), ticket_of(Net())]
    net.norm.running_mean[0] = 1
    assert len({other.fingerprint for other in (ticket, *others, ticket_of(net))}) == 4

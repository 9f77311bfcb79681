"""Tickets in networks that they were not found in."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lightning_lottery import ConfigurationError, Ticket, TicketError
from lightning_lottery.tickets.transfer import renamed
from tests.helpers.fits import Net, copied, same_bits
from tests.helpers.tickets import ticket_of


class Wrapper(nn.Module):
    """The network under another name, with a head for three classes."""

    def __init__(self):
        super().__init__()
        self.backbone = Net()
        self.backbone.output = nn.Linear(24, 3)
        self.extra = nn.Linear(3, 3)


def test_a_ticket_in_a_copy_of_its_network_stays_the_same():
    ticket = ticket_of(Net(), round=4)
    target = Net()
    before = copied(target)
    made = ticket.transfer(target)
    assert same_bits(made.ticket.masks, ticket.masks)
    assert same_bits(made.ticket.weights, ticket.weights)
    assert (made.skipped, made.left_dense) == ({}, [])
    assert set(made.carried) == set(ticket.weights)
    assert same_bits(copied(target), before), "the network is not changed"
    assert made.ticket.round == 4


def test_another_head_and_prefix():
    ticket, target = ticket_of(Net()), Wrapper()
    made = ticket.transfer(target, rename={"*": "backbone.*"})
    prefixed = {f"backbone.{name}": mask for name, mask in ticket.masks.items() if name != "output.weight"}
    alive = {name: torch.ones_like(target.get_parameter(name), dtype=torch.bool) for name in made.left_dense}
    assert made.left_dense == ["backbone.output.weight", "extra.weight"]
    assert same_bits(made.ticket.masks, prefixed | alive)
    assert made.skipped == {
        "output.weight": "its shape is (10, 24) in the ticket and (3, 24) in the network",
        "output.bias": "its shape is (10,) in the ticket and (3,) in the network",
    }
    own = copied(target)
    for name, weight in made.ticket.weights.items():
        source = name.removeprefix("backbone.")
        assert torch.equal(weight, ticket.weights[source] if name in made.carried else own[name])
    made.ticket.apply(target)
    assert not target.backbone.hidden.weight[~ticket.masks["hidden.weight"]].any()


def test_the_printed_result_says_what_happened():
    made = ticket_of(Net()).transfer(Wrapper(), rename={"*": "backbone.*"}, weights="model")
    kept, prunable = made.ticket.kept, made.ticket.prunable
    assert str(made).splitlines() == [
        f"carried 2 masks, density of the network {kept / prunable:.4f}",
        "skipped output.weight: its shape is (10, 24) in the ticket and (3, 24) in the network",
        "left dense backbone.output.weight",
        "left dense extra.weight",
    ]


def test_the_values_of_the_model_under_the_mask():
    ticket, target = ticket_of(Net()), Net()
    made = ticket.transfer(target, weights="model").ticket
    for name, value in copied(target).items():
        mask = ticket.masks.get(name)
        assert torch.equal(made.weights[name], value if mask is None else torch.where(mask, value, 0))


def test_signs_of_the_ticket_with_magnitudes_of_the_model():
    source, target = Net(), Net()
    with torch.no_grad():
        source.hidden.weight[0, :5] = 0.0  # survivors without a sign keep that of the model
    masks = {name: mask | (name == "hidden.weight") for name, mask in ticket_of(source).masks.items()}
    ticket = Ticket(masks, copied(source))
    made = ticket.transfer(target, weights="signs").ticket
    for name, value in copied(target).items():
        if name not in masks:
            assert torch.equal(made.weights[name], value)
            continue
        for position in range(0, value.numel(), 97):
            old, new, here = (
                t.view(-1)[position].item() for t in (ticket.weights[name], value, made.weights[name])
            )
            if not masks[name].view(-1)[position]:
                assert here == 0
            else:
                assert here == (new if old == 0 else abs(new) * (1 if old > 0 else -1))
    assert torch.equal(made.weights["hidden.weight"][0, :5], target.hidden.weight[0, :5])


def test_a_type_of_the_network_is_kept():
    made = ticket_of(Net()).transfer(Net().to(torch.bfloat16)).ticket
    assert made.weights["hidden.weight"].dtype == torch.bfloat16


def test_nothing_that_fits_is_an_error_with_a_suggestion():
    ticket = ticket_of(Net())
    with pytest.raises(
        TicketError, match=r"No mask .* the network has no .*Write rename=\{'\*': 'backbone\.\*'\}"
    ):
        ticket.transfer(Wrapper())
    back = ticket.transfer(Wrapper(), rename={"*": "backbone.*"}).ticket
    with pytest.raises(TicketError, match=r"Write rename=\{'backbone\.\*': '\*'\}"):
        back.transfer(Net())
    with pytest.raises(TicketError, match=r"Its prunable layers are 0\.weight"):
        ticket.transfer(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ConfigurationError, match="no prunable parameter"):
        ticket.transfer(nn.BatchNorm1d(3))


@pytest.mark.parametrize("weights", ["ticket", "model", "signs"])
def test_patterns_may_match_weights_without_a_mask(weights):
    rename = {"*.bias": "backbone.*.bias", "*.weight": "backbone.*.weight"}
    assert len(ticket_of(Net()).transfer(Wrapper(), rename, weights).ticket.masks) == 4


def test_the_second_name_of_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
            self.second.weight = self.first.weight

    loose = nn.ModuleDict({"first": nn.Linear(8, 8, bias=False), "second": nn.Linear(8, 8, bias=False)})
    ticket = ticket_of(loose)
    made = ticket.transfer(Tied())
    assert torch.equal(made.ticket.masks["first.weight"], ticket.masks["first.weight"])
    assert made.skipped == {
        "second.weight": "'second.weight' is tied to 'first.weight', which has a value already"
    }
    only = Ticket.from_masks({"second.weight": ticket.masks["second.weight"]}, loose).transfer(
        Tied(), weights="model"
    )
    assert torch.equal(only.ticket.masks["first.weight"], ticket.masks["second.weight"])


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"x.*": "y.*"}, "matches nothing in the ticket, which has convolution.weight"),
        ({"hidden.weight": "*"}, r"has more '\*' in the new name than in the pattern"),
        ({"*.weight": "same"}, r"gives 'convolution.weight' and .* the same name 'same'"),
        ({"a": 3}, "must be a dictionary of new names by patterns"),
        ("backbone.", "must be a dictionary of new names by patterns"),
    ],
)
def test_renaming_that_cannot_work(rename, message):
    with pytest.raises(TicketError, match=message):
        ticket_of(Net()).transfer(Net(), rename=rename)


def test_other_sources_of_weights_are_refused():
    with pytest.raises(TicketError, match="weights='init' must be one of 'ticket', 'model', 'signs'"):
        ticket_of(Net()).transfer(Net(), weights="init")


NAMES = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(".".join)


@given(st.sets(NAMES, min_size=1), st.text("ab", min_size=1, max_size=3))
def test_adding_and_removing_a_prefix_are_inverse(names, prefix):
    there = renamed(sorted(names), {"*": f"{prefix}.*"})
    assert there == {name: f"{prefix}.{name}" for name in names}
    assert renamed(list(there.values()), {f"{prefix}.*": "*"}) == {f"{prefix}.{name}": name for name in names}


def test_the_first_pattern_counts_and_stars_keep_their_places():
    names = ["layer.0.weight", "layer.1.weight", "head.weight"]
    assert renamed(names, {"layer.1.*": "last.*", "layer.*.weight": "block.*.kernel"}) == {
        "layer.0.weight": "block.0.kernel",
        "layer.1.weight": "last.weight",
        "head.weight": "head.weight",
    }
    assert renamed(["a.b"], {"*.*": "*-x-*"}) == {"a.b": "a-x-b"}


def test_characters_with_a_meaning_in_regular_expressions_stand_for_themselves():
    with pytest.raises(TicketError, match="matches nothing"):
        renamed(["aXb"], {"a.b": "c"})


def test_a_network_whose_layers_have_other_shapes_everywhere_shares_nothing():
    ticket = ticket_of(Net())
    other = copy.deepcopy(Net())
    other.hidden, other.output = nn.Linear(256, 30), nn.Linear(30, 10)
    made = ticket.transfer(other)
    assert list(made.ticket.masks) == ["convolution.weight", "hidden.weight", "output.weight"]
    assert made.left_dense == ["hidden.weight", "output.weight"]
    assert torch.equal(made.ticket.weights["output.bias"], ticket.weights["output.bias"])

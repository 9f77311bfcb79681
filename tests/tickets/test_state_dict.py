"""Masks that are not in the state dict of their weights."""

import pytest
import torch
from safetensors.torch import save_file

from lightning_lottery import Ticket, TicketError
from tests.helpers.fits import Net, copied, same_bits

NAMES = ("hidden.weight", "output.weight")


@pytest.fixture
def others():
    """A network and masks for two of its weights, in the types of other packages."""
    net = Net()
    masks = {name: torch.rand(net.get_parameter(name).shape) < 0.4 for name in NAMES}
    return net, masks


def assert_has(ticket, net, masks):
    assert same_bits(ticket.masks, masks)
    for name, weight in copied(net).items():
        mask = masks.get(name)
        assert torch.equal(ticket.weights[name], weight if mask is None else torch.where(mask, weight, 0))


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8, torch.int64])
@pytest.mark.parametrize("name", ["{}", "{}_mask", "layers"])
def test_masks_by_name_in_any_type(others, dtype, name):
    net, masks = others
    given = {
        key.removesuffix(".weight") if name == "layers" else name.format(key): mask.to(dtype)
        for key, mask in masks.items()
    }
    assert_has(Ticket.from_state_dict(net.state_dict(), masks=given), net, masks)
    torch.save({"state_dict": net.state_dict()}, "dense.ckpt")
    torch.save(given, "masks.pt")
    assert_has(Ticket.from_state_dict("dense.ckpt", masks="masks.pt"), net, masks)
    save_file(given, "masks.safetensors")
    assert_has(Ticket.from_state_dict("dense.ckpt", masks="masks.safetensors"), net, masks)
    some = Ticket.from_state_dict("dense.ckpt", masks="masks.pt", exclude=["output.*"])
    assert_has(some, net, {"hidden.weight": masks["hidden.weight"]})


def test_layers_may_share_one_mask(others):
    """As a tensor in memory, and in a file."""
    net, _ = others
    mask = torch.arange(24) % 3 == 0
    given = {"hidden.bias": mask, "norm.weight": mask[:4], "norm.bias": mask[:4]}
    torch.save(given, "masks.pt")
    for masks in (given, "masks.pt"):
        assert_has(Ticket.from_state_dict(net.state_dict(), masks=masks), net, given)


def test_tied_weights_have_one_mask_under_any_of_their_names():
    weight = torch.randn(3, 3)
    tied = {"first.weight": weight, "second.weight": weight, "other.bias": torch.ones(3)}
    mask = torch.rand(3, 3) < 0.5
    mask[0] = True
    for given in ({"second.weight": mask}, {"first": mask, "second": mask.clone()}):
        ticket = Ticket.from_state_dict(tied, masks=given)
        assert same_bits(ticket.masks, {"first.weight": mask})
        assert ticket.weights.keys() == {"first.weight", "other.bias"}


def test_state_dicts_inside_dictionaries(others):
    net, masks = others
    for content in (
        {"model_state_dict": net.state_dict(), "epoch": 3},
        {"model": net.state_dict(), "optimizer": {"state": {}, "param_groups": []}},
    ):
        assert_has(Ticket.from_state_dict(content, masks={"masks": masks, "round": 3}), net, masks)
    both = {"model": net.state_dict(), "average": net.state_dict()}
    with pytest.raises(TicketError, match="contains several state dicts: 'model', 'average'"):
        Ticket.from_state_dict(both, masks=masks)


def test_masks_that_do_not_fit_are_all_named(others):
    net, masks = others
    masks |= {
        "hidden": ~masks["hidden.weight"],
        "unknown.weight": torch.ones(2),
        "hidden.bias": torch.ones(3),
        "norm.weight": [1, 0],
        "output.bias": torch.full((10,), 0.5),
    }
    with pytest.raises(TicketError) as caught:
        Ticket.from_state_dict(net.state_dict(), masks=masks)
    for part in (
        "'hidden.weight' has two different masks",
        "the mask of 'norm.weight' is list, which is not a tensor",
        "'unknown.weight' is not among the weights",
        "the mask of 'hidden.bias' has shape (3,), not (24,)",
        "the mask of 'output.bias' has other values than 0 and 1",
        "The weights are convolution.weight, ",
    ):
        assert part in str(caught.value)


def test_a_mask_that_keeps_nothing_is_named(others):
    net, masks = others
    masks["output.weight"].zero_()
    with pytest.raises(TicketError, match=r"keep no weight of 'output.weight'"):
        Ticket.from_state_dict(net.state_dict(), masks=masks)


def test_a_file_without_masks_is_named(others):
    net, _ = others
    torch.save([1, 2], "masks.pt")
    with pytest.raises(TicketError, match=r"masks.pt contains list"):
        Ticket.from_state_dict(net.state_dict(), masks="masks.pt")
    with pytest.raises(TicketError, match=r"contains no tensors: 'hidden.weight'"):
        Ticket.from_state_dict(net.state_dict(), masks={"hidden.weight": [1, 0]})

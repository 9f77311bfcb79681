import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import Ticket, TicketError
from lightning_lottery.analysis import Overlap, overlap
from tests.helpers.fits import needs


def tickets(masks, weights=None):
    weights = weights or [{name: torch.ones(mask.shape) for name, mask in each.items()} for each in masks]
    return [Ticket(mask, weight) for mask, weight in zip(masks, weights, strict=True)]


def test_counts_of_a_small_example():
    first = {"a": torch.tensor([[True, True, False, False]]), "b": torch.tensor([[True, False]])}
    second = {"a": torch.tensor([[True, False, True, True]]), "b": torch.tensor([[True, False]])}
    weights = [
        {"a": torch.tensor([[1.0, -2.0, 3.0, 4.0]]), "b": torch.tensor([[-1.0, 1.0]])},
        {"a": torch.tensor([[-1.0, -2.0, 3.0, 4.0]]), "b": torch.tensor([[-5.0, 1.0]])},
    ]
    found = overlap(*tickets([first, second], weights))
    a, b = found.layers["a"], found.layers["b"]
    assert (a.prunable, a.first, a.second, a.both, a.iou) == (4, 2, 3, 1, 0.25)
    assert (a.expected_both, a.same_sign, a.sign_agreement) == (1.5, 0, 0)
    assert a.expected_sign_agreement == pytest.approx(1 / 2 * 1 / 3 + 1 / 2 * 2 / 3), "of 1, -2 and of -1, 3, 4"
    assert (b.iou, b.sign_agreement, b.expected_sign_agreement) == (1, 1, 1)
    assert (found.total.both, found.total.iou, found.total.sign_agreement) == (2, 0.4, 0.5)
    assert found.total.expected_both == 1.5 + 0.5
    assert found.to_json()["layers"]["a"]["iou"] == 0.25


@given(st.integers(2, 60), st.data())
def test_what_is_expected_by_chance_is_the_mean_of_the_hypergeometric_distribution(n, data):
    scipy = needs("scipy.stats")
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, n))
    masks = [{"w": torch.arange(n) < kept} for kept in (a, b)]
    (layer,) = overlap(*tickets(masks)).layers.values()
    chance = scipy.hypergeom(n, a, b)
    assert layer.expected_both == pytest.approx(chance.mean())
    assert layer.variance == pytest.approx(chance.var(), abs=1e-12)
    if a + b:
        exact = sum(chance.pmf(both) * both / (a + b - both) for both in range(min(a, b) + 1))
        assert layer.expected_iou == pytest.approx(exact, abs=0.25 / n)


def test_random_masks_overlap_as_expected_in_all_layers_together():
    generator = torch.Generator().manual_seed(0)
    shares = {"a": 0.1, "b": 0.6}
    seen, expected = [], []
    for _ in range(200):
        masks = [{name: torch.rand(500, generator=generator) < p for name, p in shares.items()} for _ in "12"]
        weights = [{name: torch.randn(500, generator=generator) for name in shares} for _ in "12"]
        total = overlap(*tickets(masks, weights)).total
        seen.append([total.iou, total.sign_agreement])
        expected.append([total.expected_iou, total.expected_sign_agreement])
    means, deviations = torch.tensor(seen).mean(0), torch.tensor(seen).std(0) / 200**0.5
    assert ((means - torch.tensor(expected).mean(0)).abs() < 4 * deviations).all()


def test_signs_by_chance_are_those_of_all_survivors_of_a_ticket():
    """Also of those that do not survive in the other ticket."""
    place = torch.arange(1500)
    masks = [{"w": place < 1000}, {"w": place >= 500}]
    weights = [{"w": (place >= 500).float() - 0.5}, {"w": (place < 1000).float() - 0.5}]
    (layer,) = overlap(*tickets(masks, weights)).layers.values()
    assert (layer.both, layer.sign_agreement, layer.expected_sign_agreement) == (500, 1, 0.5)


def test_survivors_that_are_zero_have_a_sign_of_their_own():
    masks = [{"w": torch.ones(4, dtype=torch.bool)}] * 2
    weights = [{"w": torch.tensor([0.0, 0.0, 1.0, -1.0])}, {"w": torch.tensor([0.0, 1.0, 1.0, 1.0])}]
    (layer,) = overlap(*tickets(masks, weights)).layers.values()
    assert (layer.same_sign, layer.expected_same_sign) == (2, 4 * (0.5 * 0.25 + 0.25 * 0.75))


def test_weights_of_eight_bits():
    masks = [{"w": torch.tensor([True, False])}] * 2
    weights = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([1.0, 0.0]).to(torch.float8_e4m3fn)}]
    first, second = (
        tickets([masks[0]], [weights[0]])[0],
        Ticket.masked(**{**vars(tickets(masks)[0]), "weights": weights[1]}),
    )
    assert overlap(first, second).total.sign_agreement == 1


def test_a_ticket_without_masks_has_nothing_to_compare():
    ticket = Ticket({"w": torch.ones(2, dtype=torch.bool)}, {"w": torch.ones(2)})
    with pytest.raises(TicketError, match="The second ticket has no masks to compare"):
        overlap(ticket, Ticket({}, {"w": torch.ones(2)}))


def test_a_mask_compared_with_itself():
    mask = {"w": torch.rand(100) < 0.3}
    (layer,) = overlap(*tickets([mask, mask])).layers.values()
    assert (layer.iou, layer.sign_agreement) == (1, 1)
    assert layer.expected_iou < 0.3


def test_layers_that_keep_nothing():
    nothing, all_of_it = ({"w": torch.full((3,), value)} for value in (False, True))
    empty = overlap(*tickets([nothing, nothing])).total
    assert (empty.iou, empty.expected_iou, empty.sign_agreement) == (1, 1, None)
    assert overlap(*tickets([nothing, all_of_it])).total.iou == 0
    assert overlap(*tickets([all_of_it, all_of_it])).total.expected_iou == 1
    assert Overlap(0, 0, 0, 0, 0.0, 0.0, 0, 0.0).expected_sign_agreement is None


def test_layers_that_cannot_be_compared_are_named():
    first = {"a": torch.ones(2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)}
    second = {"b": torch.ones(3, dtype=torch.bool), "c": torch.ones(2, dtype=torch.bool)}
    with pytest.raises(TicketError, match=r"the first has a, b, the second b, c. .*ticket.transfer"):
        overlap(*tickets([first, second]))
    both = [{**each, "d": torch.ones(2, dtype=torch.bool)} for each in (first, second)]
    found = overlap(*tickets(both))
    assert list(found.layers) == ["d"]
    assert found.left_out == {
        "a": "only the first ticket has it",
        "c": "only the second ticket has it",
        "b": "its shape is (2,) and (3,)",
    }


def test_what_only_follows_is_not_compared():
    masks = {"w": torch.ones(2, 2, dtype=torch.bool), "b": torch.ones(2, dtype=torch.bool)}
    weights = {"w": torch.ones(2, 2), "b": torch.ones(2)}
    ticket = Ticket(masks, weights, following=["b"])
    assert list(overlap(ticket, ticket).layers) == ["w"]

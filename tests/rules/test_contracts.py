"""Contracts of rewinding rules, controls and stop rules: over all of them."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_lottery import DenseAgain, InitialTicket, Point, RandomMask, RoundRecord, SignOnly
from lightning_lottery.rules.control import make_control
from lightning_lottery.rules.rewind import rewind_of
from lightning_lottery.tickets.dense import dense_ticket
from tests.helpers.contracts import CONTROLS, REWINDS, STOPS
from tests.helpers.fits import Net, same_bits


@pytest.mark.parametrize("rule", REWINDS, ids=repr)
def test_a_rewinding_rule_says_where_weights_and_schedule_return_to(rule):
    assert rule.weights is None or isinstance(rule.weights, Point)
    assert isinstance(rule.schedule, Point)
    assert rule.weights in (None, rule.schedule), "no rule of ours takes them from different points"
    assert rule.length is None or (rule.length[0] >= 1 and 0 < rule.length[1] < math.inf)
    assert isinstance(rule.fresh_optimizer, bool)
    assert rewind_of(rule) is rule


def tickets(density=0.3):
    torch.manual_seed(2)
    module = Net()
    dense = dense_ticket(module, {n: p for n, p in module.named_parameters() if p.dim() > 1})
    generator = torch.Generator().manual_seed(4)
    masks = {name: torch.rand(mask.shape, generator=generator) < density for name, mask in dense.masks.items()}
    return module, dense, type(dense)(masks, dense.weights, round=2)


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_a_control_makes_a_fair_ticket_and_changes_nothing(control):
    module, dense, ticket = tickets()
    before = copy.deepcopy((module.state_dict(), dense.masks, dense.weights, ticket.masks, ticket.weights))
    control.check(dense, module)
    made = make_control(control, ticket, dense, module, seed=0)
    after = (module.state_dict(), dense.masks, dense.weights, ticket.masks, ticket.weights)
    assert all(map(same_bits, before, after))
    assert made.kept == ticket.kept
    if not isinstance(control, RandomMask):  # whose scope decides what each layer keeps
        assert made.layer_densities() == ticket.layer_densities()
    assert made.weights.keys() == ticket.weights.keys()
    same_masks, same_weights = same_bits(made.masks, ticket.masks), same_bits(made.weights, ticket.weights)
    starts_elsewhere = control.from_init or control.other_data_order
    assert starts_elsewhere == (same_masks and same_weights), "otherwise nothing would be wrong about it"


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_a_control_depends_on_its_seed_alone(control):
    module, dense, ticket = tickets()
    first, again, other = (make_control(control, ticket, dense, module, seed) for seed in (7, 7, 8))
    assert same_bits(first.masks, again.masks)
    assert same_bits(first.weights, again.weights)
    draws_nothing = isinstance(control, (SignOnly, DenseAgain, InitialTicket))
    assert draws_nothing == (same_bits(first.masks, other.masks) and same_bits(first.weights, other.weights))
    assert control.branch.isidentifier()
    assert control.branch == control.branch.lower()


def records(values):
    return [RoundRecord(n, "ticket", 0.5**n, 1, 1, 1, best_value=value) for n, value in enumerate(values)]


@pytest.mark.parametrize("rule", STOPS, ids=repr)
@settings(max_examples=60)
@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=6), mode=st.sampled_from(["min", "max"]))
def test_a_stop_rule_that_compares_never_ends_rounds_that_only_improve(rule, values, mode):
    improving = records(sorted(values, reverse=mode == "min"))
    assert rule.after_round(improving, mode) is False
    if not rule.compares:
        assert rule.after_round(records(values), mode) is False


@pytest.mark.parametrize("rule", STOPS, ids=repr)
def test_a_stop_rule_ends_a_round_only_by_a_full_window_of_stable_masks(rule):
    assert rule.window >= 0
    now = {"w": torch.ones(20, dtype=torch.bool)}
    stable = {"w": torch.arange(20) < 10}
    unstable = [{"w": torch.arange(20) % 2 == n % 2} for n in range(rule.window)]
    for number in range(rule.window):
        assert rule.after_epoch([stable] * number, now) is False
    assert rule.after_epoch([stable] * max(rule.window, 1), now) is (rule.window > 0)
    assert rule.after_epoch(unstable, now) is False

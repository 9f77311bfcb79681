import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.pruning.sizes import Sizes


@given(st.integers(1000, 10**9), st.floats(0.05, 0.6), st.integers(1, 6))
def test_amount_removes_exactly_its_share_of_the_survivors(prunable, amount, rounds):
    counts = Sizes(rounds, amount=amount).counts(prunable)
    assert len(counts) == rounds + 1
    assert counts[0] == prunable
    for before, after in itertools.pairwise(counts):
        assert after == before - round(amount * before)


@given(st.integers(1000, 10**9), st.floats(0.05, 0.9), st.integers(1, 6))
def test_target_density_is_met_to_the_weight_in_geometric_steps(prunable, target, rounds):
    counts = Sizes(rounds, target_density=target).counts(prunable)
    assert counts[-1] == round(target * prunable)
    ratios = [after / before for before, after in itertools.pairwise(counts)]
    assert max(ratios) - min(ratios) < 0.01


@given(st.integers(1000, 10**6), st.lists(st.floats(0.01, 0.99), min_size=1, max_size=5, unique=True))
def test_densities_are_met_to_the_weight(prunable, densities):
    densities = sorted(densities, reverse=True)
    expected = [prunable, *(round(density * prunable) for density in densities)]
    assume(all(a > b for a, b in itertools.pairwise(expected)))
    sizes = Sizes(densities=densities)
    assert sizes.counts(prunable) == expected
    assert sizes.last_round == len(densities)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": 3}, "you passed none of them"),
        ({"rounds": 3, "amount": 0.2, "target_density": 0.1}, "you passed amount=0.2 and target_density=0.1"),
        ({"amount": 0.2, "densities": [0.5]}, "Pass exactly one of"),
        ({"rounds": 3, "amount": 0}, "amount=0 must be a number between 0 and 1, both excluded"),
        ({"rounds": 3, "amount": 1.0}, "between 0 and 1"),
        ({"rounds": 3, "amount": -0.2}, "amount=-0.2"),
        ({"rounds": 3, "amount": "0.2"}, "amount='0.2'"),
        ({"rounds": 3, "amount": float("nan")}, "amount=nan"),
        ({"rounds": 3, "target_density": 1.5}, "target_density=1.5 must be a number between 0 and 1"),
        ({"amount": 0.2}, "rounds, the number of prunings, is missing"),
        ({"rounds": 0, "amount": 0.2}, "rounds=0"),
        ({"rounds": 2.5, "amount": 0.2}, "rounds=2.5"),
        ({"rounds": True, "amount": 0.2}, "rounds=True"),
        ({"densities": 0.5}, "densities=0.5 is not a list"),
        ({"densities": ["a", "b"]}, r"densities\[0\]='a' must be a number between 0 and 1"),
        ({"densities": []}, "must be falling or equal"),
        ({"densities": [0.5, 0.5, 0.6]}, "must be falling or equal"),
        ({"densities": [0.2, 0.5]}, "must be falling or equal"),
        ({"densities": [1.0, 0.5]}, "without the dense round 0"),
        ({"rounds": 3, "densities": [0.5, 0.2]}, "rounds=3 does not fit 2 densities"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        Sizes(**arguments)


@given(st.integers(1000, 10**6), st.lists(st.sampled_from([0.5, 0.25, 0.1, 0.02]), min_size=1, max_size=9))
def test_equal_densities_keep_equal_counts(prunable, densities):
    densities.sort(reverse=True)
    counts = Sizes(densities=densities).counts(prunable)
    assert counts == [prunable, *(round(density * prunable) for density in densities)]


def test_only_equal_densities_may_keep_equal_counts():
    assert Sizes(densities=[0.5, 0.5]).counts(10) == [10, 5, 5]
    with pytest.raises(ConfigurationError, match=r"Round 2 would keep 5 of 10.*unless densities repeats"):
        Sizes(densities=[0.52, 0.51]).counts(10)
    with pytest.raises(ConfigurationError, match="Round 1 would keep 10 of 10"):
        Sizes(densities=[0.99]).counts(10)
    assert Sizes(densities=[0.5, 0.5, 0.2]).counts(10, alive=5) == [5, 5, 5, 2], "from a ticket of this density"


def test_numpy_numbers_are_accepted():
    assert Sizes(1, amount=np.float32(0.5)).counts(100) == [100, 50]
    assert Sizes(np.int64(2), target_density=torch.tensor(0.25)).counts(100) == [100, 50, 25]
    assert Sizes(densities=np.array([0.5, 0.25])) == Sizes(densities=[0.5, 0.25])


def test_a_round_that_removes_or_leaves_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="Round 1 would keep 20 of 20"):
        Sizes(1, amount=0.01).counts(20)
    with pytest.raises(ConfigurationError, match="would keep 0 of 100"):
        Sizes(1, target_density=0.001).counts(100)


@given(
    prunable=st.integers(100, 10_000),
    share=st.floats(0.3, 1.0),
    amount=st.floats(0.05, 0.5),
    rounds=st.integers(1, 4),
)
def test_sizes_from_a_ticket_count_from_its_survivors_or_from_all_weights(prunable, share, amount, rounds):
    alive = max(50, int(share * prunable))
    expected = [alive]
    for _ in range(rounds):
        expected.append(expected[-1] - round(amount * expected[-1]))
    assert Sizes(rounds, amount).counts(prunable, alive=alive) == expected
    assert Sizes(densities=[0.2, 0.1]).counts(prunable, alive=alive)[1:] == [
        round(0.2 * prunable),
        round(0.1 * prunable),
    ]
    last = Sizes(rounds, target_density=0.1).counts(prunable, alive=alive)
    assert last[0] == alive
    assert last[-1] == round(0.1 * prunable)
    for number, count in enumerate(last):
        assert abs(count - alive * (0.1 * prunable / alive) ** (number / rounds)) <= 0.5 + 1e-6


def test_densities_above_the_ticket_s_are_refused():
    with pytest.raises(ConfigurationError, match="Round 1 would keep 50 of 100 prunable weights, after 30"):
        Sizes(densities=[0.5]).counts(100, alive=30)

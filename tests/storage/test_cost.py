"""What trainings cost, against numbers by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import ConfigurationError, Records
from lightning_lottery.storage.cost import Cost
from lightning_lottery.storage.flops import BatchFlops
from tests.helpers.records import record


def training(number, branch="ticket", steps=100, seconds=2.0, flops=5000, sparse=None, **fields):
    sparse = flops if sparse is None else sparse
    return record(number, branch, steps=steps, seconds=seconds, flops=flops, sparse_flops=sparse, **fields)


def numbers(cost):
    return cost.trainings, cost.flops, cost.sparse_flops, cost.seconds


def test_costs_are_in_units_of_round_0():
    records = Records(
        [
            training(0),
            training(1, "search", steps=20, seconds=0.5, flops=1000, sparse=800),
            training(2, steps=100, seconds=3.0, flops=5000, sparse=3000),
            training(2, "reinitialize", steps=50, seconds=1.0, flops=2500, sparse=1500),
        ]
    )
    cost = records.cost()
    assert numbers(cost) == pytest.approx((2.7, 2.7, 10300 / 5000, 3.25))
    assert list(cost.by_branch) == ["ticket", "search", "reinitialize"]
    assert numbers(cost.by_branch["search"]) == pytest.approx((0.2, 0.2, 0.16, 0.25))
    assert numbers(cost.by_branch["ticket"]) == pytest.approx((2.0, 2.0, 1.6, 2.5))


def test_a_dense_round_that_was_cut_short_counts_with_its_full_length():
    cut = training(0, steps=40, seconds=1.0, flops=2000, saved_steps=60)
    cost = Cost.of([cut, training(1, steps=100, seconds=2.5, flops=5000, sparse=1000)])
    assert numbers(cost) == pytest.approx((1.4, 1.4, 0.6, 1.4))


def test_unknown_operations_stay_unknown():
    cost = Cost.of([training(0), training(1, flops=None)])
    assert (cost.flops, cost.sparse_flops) == (None, None)
    assert cost.trainings == 2
    assert Cost.of([training(0, flops=None)]).flops is None


@pytest.mark.parametrize("records", [[], [training(1)], [training(0, "dense_again")]])
def test_without_a_dense_round_the_unit_is_missing(records):
    with pytest.raises(ConfigurationError, match="in trainings of round 0, but round 0 has not finished"):
        Records(records).cost()


@given(
    st.lists(st.tuples(st.sampled_from(["ticket", "search", "reinitialize"]), st.integers(1, 10**6)), max_size=20)
)
def test_branches_add_up_to_the_whole(parts):
    others = [
        training(n, b, steps=s, seconds=s / 7, flops=3 * s, sparse=2 * s)
        for n, (b, s) in enumerate(parts, start=1)
    ]
    cost = Cost.of([training(0), *others])
    for index, total in enumerate(numbers(cost)):
        assert math.isclose(total, sum(numbers(part)[index] for part in cost.by_branch.values()))


def test_sparse_operations_are_those_of_surviving_weights():
    flops = BatchFlops(1000, {"a": 600, "b": 300})
    assert flops.sparse({"a": 0.5, "b": 0.1, "c": 0.2}) == pytest.approx(1000 - 300 - 270)
    assert flops.sparse({}) == 1000

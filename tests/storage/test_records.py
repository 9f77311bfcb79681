import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery import ConfigurationError, Records
from lightning_lottery.storage.record import Curve, is_better
from lightning_lottery.storage.records import smallest_matching
from tests.helpers.records import record


def test_records_by_round_and_by_branch():
    records = Records([record(0), record(1), record(1, "shuffle_mask")])
    assert [r.round for r in records] == [0, 1, 1]
    assert records[1].branch == "ticket"
    assert records["shuffle_mask"][1].branch == "shuffle_mask"
    assert list(records["ticket"]) == [0, 1]
    assert records.branches() == ["ticket", "shuffle_mask"]
    assert len(records[:2]) == 2


def test_records_without_a_dense_round_are_indexed_by_round():
    records = Records([record(1), record(2), record(1, "shuffle_mask"), record(2, "shuffle_mask")])
    assert (records[1].round, records[2].round) == (1, 2)
    assert (records[3].branch, records[3].round) == ("shuffle_mask", 1)
    assert records[-1] is records[4]
    assert [r.round for r in records[1:3]] == [1, 2] == [r.round for r in records[:3]]
    assert [r.round for r in records] == [1, 2, 1, 2]
    assert list(reversed(records)) == list(records)[::-1]
    assert [r.round for r in records[2:0:-1]] == [2, 1]
    assert [r.round for r in records[::-1]] == [2, 1, 2, 1]
    assert records[0:1] == []
    assert records[2] in records
    assert not isinstance(records, Sequence), "pandas would ask for number 0"
    with pytest.raises(IndexError, match=r"no round 0: prune_at_init=True.*records\[1\]"):
        records[0]
    with pytest.raises(IndexError):
        records[5]


def test_with_search_rounds_records_are_indexed_by_the_tickets_that_trained_fully():
    search = [record(number, "search") for number in (1, 2, 3)]
    tickets = [record(0), record(2), record(4)]
    records = Records([tickets[0], *search, *tickets[1:], record(4, "reinitialize")])
    assert [records[number] for number in (0, 2, 4)] == tickets
    assert records["search"] == {1: search[0], 2: search[1], 3: search[2]}
    assert records[-1].branch == "reinitialize"
    assert records[1:4] == search, "slices count trainings"
    for number in (1, 3):
        with pytest.raises(
            IndexError, match=rf"{number} has not trained fully.*\[0, 2, 4\].*\['search'\]\[{number}\]"
        ):
            records[number]
    with pytest.raises(IndexError, match=r"Round 5 has no record; the rounds of tickets are \[0, 2, 4\]"):
        records[5]


def test_an_unknown_branch_raises_a_key_error_with_the_known_ones():
    with pytest.raises(KeyError, match=r"no records of branch 'typo'.*\['ticket', 'shuffle_mask'\]"):
        Records([record(0), record(1, "shuffle_mask")])["typo"]
    assert Records()["ticket"] == {}


@pytest.mark.parametrize(("mode", "value", "step"), [("max", 0.9, 2), ("min", 0.1, 3)])
def test_best_is_the_first_of_the_best_and_never_nan(mode, value, step):
    curve = Curve(mode)
    assert curve.best is None
    for number, seen in enumerate([math.nan, 0.5, 0.9, 0.1, 0.9, 0.1, math.nan]):
        curve.observe(seen, number)
    assert curve.best == (step, value)


def test_a_curve_has_every_value_once():
    curve = Curve("max")
    for step, value in [(1, 0.5), (1, 0.5), (2, 0.5), (2, math.nan), (2, math.nan), (2, 0.4), (2, 0.5)]:
        curve.observe(value, step)
    assert repr(curve.points) == "[(1, 0.5), (2, 0.5), (2, nan), (2, 0.4), (2, 0.5)]"


# Values that differ by more than rounding, which first_reached does not count.
thousandths = st.integers(0, 1000).map(lambda number: number / 1000)
values = st.lists(thousandths | st.just(math.nan), max_size=20)


@given(values, thousandths, st.sampled_from(["min", "max"]))
def test_the_step_at_which_a_value_is_first_reached(values, goal, mode):
    found = record(0, curve=tuple((10 * number, value) for number, value in enumerate(values))).first_reached(
        goal, mode
    )
    reached = [value >= goal if mode == "max" else value <= goal for value in values]
    assert found == (10 * reached.index(True) if any(reached) else None)


@pytest.mark.parametrize(("mode", "value"), [("max", 0.8999999761581421), ("min", 0.9000000357627869)])
def test_a_value_in_single_precision_is_reached(mode, value):
    assert record(0, curve=((5, value),)).first_reached(0.9, mode) == 5


@pytest.mark.parametrize(
    ("mode", "values", "tolerance", "expected"),
    [
        ("max", [0.90, 0.91, 0.89, 0.90, 0.80], 0, 3),
        ("max", [0.90, 0.91, 0.89, 0.80, 0.80], 0, 1),
        ("max", [0.90, 0.91, 0.89, 0.80, 0.80], 0.0101, 2),
        ("max", [0.90, 0.80, 0.80, 0.80, 0.80], 0, 0),
        ("min", [0.30, 0.29, 0.31, 0.40, 0.50], 0, 1),
        ("min", [0.30, 0.29, 0.31, 0.40, None], 0.1001, 3),
        ("min", [math.inf, math.inf, 0.3, math.inf, None], 0, 3),
        ("min", [math.inf, None, None, None, None], 0, 0),
        ("max", [0.30, -math.inf, math.inf, -math.inf, -math.inf], 0, 2),
    ],
)
def test_smallest_matching(mode, values, tolerance, expected):
    records = Records([record(number, best=value) for number, value in enumerate(values)])
    records.append(record(4, "shuffle_mask", best=1.0 if mode == "max" else 0.0))
    assert smallest_matching(records, mode, tolerance).round == expected


def test_smallest_matching_reports_what_is_missing():
    with pytest.raises(ConfigurationError, match="No round has finished"):
        smallest_matching(Records(), "max", 0)
    with pytest.raises(ConfigurationError, match="monitor='val_acc'"):
        smallest_matching(Records([record(0)]), "max", 0)
    with pytest.raises(ConfigurationError, match="tolerance=-1"):
        smallest_matching(Records([record(0, best=0.9)]), "max", -1)


numbers = st.floats(allow_nan=True, allow_infinity=True)


@given(numbers, numbers)
def test_is_better_follows_the_mode_and_never_prefers_nan(first, second):
    assert is_better(first, second, "max") == (first > second)
    assert is_better(first, second, "min") == (first < second)
    assert not is_better(first, math.nan, "max")
    assert not is_better(math.nan, first, "min")


def test_is_better_by_more_than_a_difference():
    assert is_better(0.75, 0.5, "max", by=0.125)
    assert not is_better(0.75, 0.5, "max", by=0.25)
    assert is_better(0.5, 0.75, "min", by=0.125)
    assert not is_better(math.inf, math.inf, "max")

import math

import pytest

from lightning_lottery import ConfigurationError, Records, RoundRecord
from lightning_lottery.records import Best, round_name, smallest_matching


def record(number, branch="ticket", best=None, **fields):
    defaults = {"density": 0.5**number, "kept": 100, "prunable": 200, "parameters": 300}
    return RoundRecord(number, branch, best_value=best, **{**defaults, **fields})


def test_records_by_round_and_by_branch():
    records = Records([record(0), record(1), record(1, "shuffle_mask")])
    assert [r.round for r in records] == [0, 1, 1]
    assert records[1].branch == "ticket"
    assert records["shuffle_mask"][1].branch == "shuffle_mask"
    assert list(records["ticket"]) == [0, 1]
    assert records.branches() == ["ticket", "shuffle_mask"]
    assert len(records[:2]) == 2


@pytest.mark.parametrize(("mode", "value", "step"), [("max", 0.9, 2), ("min", 0.1, 3)])
def test_best_is_the_first_of_the_best_and_never_nan(mode, value, step):
    best = Best(mode)
    for number, seen in enumerate([math.nan, 0.5, 0.9, 0.1, 0.9, 0.1, math.nan]):
        best.observe(seen, number)
    assert (best.value, best.step) == (value, step)


@pytest.mark.parametrize(
    ("mode", "values", "tolerance", "expected"),
    [
        ("max", [0.90, 0.91, 0.89, 0.90, 0.80], 0, 3),
        ("max", [0.90, 0.91, 0.89, 0.80, 0.80], 0, 1),
        ("max", [0.90, 0.91, 0.89, 0.80, 0.80], 0.0101, 2),
        ("max", [0.90, 0.80, 0.80, 0.80, 0.80], 0, 0),
        ("min", [0.30, 0.29, 0.31, 0.40, 0.50], 0, 1),
        ("min", [0.30, 0.29, 0.31, 0.40, None], 0.1001, 3),
    ],
)
def test_smallest_matching(mode, values, tolerance, expected):
    records = Records([record(number, best=value) for number, value in enumerate(values)])
    records.append(record(4, "shuffle_mask", best=1.0 if mode == "max" else 0.0))
    assert smallest_matching(records, mode, tolerance).round == expected


def test_smallest_matching_says_what_is_missing():
    with pytest.raises(ConfigurationError, match="No round has finished"):
        smallest_matching(Records(), "max", 0)
    with pytest.raises(ConfigurationError, match="monitor='val_acc'"):
        smallest_matching(Records([record(0)]), "max", 0)
    with pytest.raises(ConfigurationError, match="tolerance=-1"):
        smallest_matching(Records([record(0, best=0.9)]), "max", -1)


def test_round_names():
    assert round_name(3) == "round_03"
    assert round_name(12, "shuffle_mask") == "round_12_shuffle_mask"

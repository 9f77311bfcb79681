"""Mean learning curves, against pandas."""

import math

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_lottery.analysis import mean_curve

curve = st.dictionaries(st.integers(0, 8), st.floats(-10, 10) | st.just(math.nan)).map(lambda c: sorted(c.items()))


@given(st.lists(curve, min_size=1, max_size=4))
def test_the_mean_is_over_the_same_seeds_at_every_step(curves):
    known = [pandas.Series(dict(c), dtype=float) for c in curves if c]
    expected = (
        pandas.concat(known, axis=1).sort_index().dropna().mean(axis=1) if known else pandas.Series(dtype=float)
    )
    found = mean_curve(curves)
    assert [step for step, _ in found] == list(expected.index)
    assert [value for _, value in found] == pytest.approx(list(expected))


def test_of_several_values_at_one_step_the_last_one_counts():
    assert mean_curve([[(1, 0.0), (1, 0.5)], [(1, 0.1)]]) == [(1, pytest.approx(0.3))]
    assert mean_curve([]) == []

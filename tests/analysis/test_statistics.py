"""Statistics against statsmodels, and against numbers computed by hand."""

import importlib.util
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from lightning_lottery import ConfigurationError
from lightning_lottery.analysis import (
    PairedDifference,
    Question,
    Verdict,
    holm,
    paired_difference,
    word_for,
)
from lightning_lottery.analysis.verdict import Training
from lightning_lottery.tickets import RoundId

values = st.floats(-100, 100, allow_subnormal=False)


@given(st.lists(st.tuples(values, values), min_size=2, max_size=12), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_differences_are_those_of_a_paired_t_test(pairs, confidence):
    first, second = ({seed: pair[place] for seed, pair in enumerate(pairs)} for place in (0, 1))
    differences = np.array([a - b for a, b in pairs])
    assume(np.ptp(differences) > 1e-3)
    reference = DescrStatsW(differences)
    found = paired_difference(first, second, confidence)
    assert found.n == len(pairs)
    assert found.mean == pytest.approx(float(np.mean(differences)), abs=1e-9)
    low, high = reference.tconfint_mean(alpha=1 - confidence)
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-6), pytest.approx(high, rel=1e-6))
    assert found.p == pytest.approx(reference.ttest_mean(0.0)[1], rel=1e-6, abs=1e-12)


def test_an_interval_by_hand():
    """Differences 1, 2, 3, 4, 5: mean 3, deviation sqrt(2.5), and t(0.975; 4) = 2.7764 in every table."""
    first = {seed: 10.0 + seed for seed in range(1, 6)}
    second = dict.fromkeys(range(1, 6), 10.0)
    found = paired_difference(first, second)
    half = 2.7764451 * math.sqrt(2.5) / math.sqrt(5)
    assert (found.n, found.mean) == (5, 3.0)
    assert (found.low, found.high) == (pytest.approx(3 - half, rel=1e-6), pytest.approx(3 + half, rel=1e-6))


def test_only_seeds_in_both_are_paired():
    found = paired_difference({0: 1.0, 1: 5.0, 2: 2.5}, {2: 1.0, 0: 0.0, 7: 9.0})
    assert (found.n, found.mean) == (2, 1.25)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    assert paired_difference({0: 1.0}, {0: 0.25}) == PairedDifference(1, 0.75)


@pytest.mark.parametrize("step", [0.1, 0.0])
@pytest.mark.parametrize("kind", [float, np.float32])
def test_equal_differences_have_no_variance_and_no_p_value(step, kind):
    """0.3 - 0.2 is not exactly 0.2 - 0.1, neither in double nor in single precision."""
    first = {seed: float(kind(0.1 * seed + step)) for seed in range(4)}
    found = paired_difference(first, {seed: float(kind(0.1 * seed)) for seed in range(4)})
    assert found.low == found.high == found.mean == pytest.approx(step, rel=1e-6)
    assert found.p is None
    assert step or found.mean == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


GAIN = [0.020, 0.024, 0.018, 0.022, 0.021]
LOSS = [-value for value in GAIN]
NOISE = [0.010, -0.012, 0.004, -0.006, 0.003]


@pytest.mark.parametrize(
    ("differences", "mode", "tolerance", "word"),
    [
        (GAIN, "max", 0.0, "winning"),
        (GAIN, "min", 0.0, "worse"),
        (LOSS, "max", 0.0, "worse"),
        (LOSS, "min", 0.0, "winning"),
        (LOSS, "max", 0.03, "matching"),
        (GAIN, "min", 0.03, "matching"),
        (LOSS, "max", 0.021, "worse"),
        (NOISE, "max", 0.0, "inconclusive"),
        (NOISE, "min", 0.0, "inconclusive"),
        (NOISE, "max", 0.005, "inconclusive"),
        (NOISE, "max", 0.02, "matching"),
        (NOISE, "min", 0.02, "matching"),
        (GAIN[:2], "max", 0.0, "inconclusive"),
        (GAIN[:3], "max", 0.0, "winning"),
        ([0.0, 0.0, 0.0], "max", 0.0, "matching"),
    ],
)
def test_words(differences, mode, tolerance, word):
    found = paired_difference(dict(enumerate(differences)), dict.fromkeys(range(5), 0.0))
    assert word_for(found, mode, tolerance) == word


def test_words_do_not_depend_on_rounding():
    """Accuracies are float32: 0.905 - 0.9 is 0.00499999 or 0.00500001 there."""
    dense = {seed: float(np.float32(0.9 + 0.01 * seed)) for seed in range(4)}
    lower = {seed: float(np.float32(0.895 + 0.01 * seed)) for seed in range(4)}
    question = Question("acc", "max", "end", tolerance=0.005)
    verdict = Verdict.of([Training(RoundId(0), 1.0, dense), Training(RoundId(1), 0.5, lower)], range(4), question)
    assert verdict[1].word == "matching"
    same = {seed: value + 2e-8 for seed, value in dense.items()}
    verdict = Verdict.of([Training(RoundId(0), 1.0, dense), Training(RoundId(1), 0.5, same)], range(4), question)
    assert (verdict[1].word, verdict[1].metric.to_dense.mean) == ("matching", 0)


def test_one_seed_is_inconclusive():
    assert word_for(PairedDifference(1, 0.5), "max", 10.0) == "inconclusive"


def test_without_scipy_the_error_names_the_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "lightning_lottery.analysis.statistics.find_spec", lambda name: None if name == "scipy" else find(name)
    )
    with pytest.raises(ConfigurationError, match=r"pip install 'lightning-lottery\[study\]'"):
        paired_difference({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0})

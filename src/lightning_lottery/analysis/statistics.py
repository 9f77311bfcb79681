"""Paired differences over seeds: means, intervals, p-values, and what they mean in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import mean
from typing import Literal

from lightning_lottery.errors import ConfigurationError
from lightning_lottery.storage import rounding

Word = Literal["winning", "matching", "worse", "inconclusive"]
ENOUGH_SEEDS = 3  # seeds for anything but "inconclusive"


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two trainings over the seeds that have both, and how certain it is.

    Attributes:
        n: Number of seeds.
        mean: Mean of the differences.
        low: Lower end of the confidence interval of the mean, by Student's t distribution; ``None`` for one
            seed. If all differences are equal, both ends are equal to them.
        high: Upper end.
        p: Two-sided p-value of the hypothesis that the true mean is 0 (paired t-test); ``None`` for one seed, and
            if all differences are equal.
        p_holm: The p-value, adjusted for all tests of the same kind (see :func:`holm`).
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


def paired_difference(
    first: Mapping[int, float], second: Mapping[int, float], confidence: float = 0.95
) -> PairedDifference | None:
    """Compares two trainings of the same seeds.

    Assumes that the differences of the seeds are independent and normally distributed.

    Args:
        first: Finite values by seed.
        second: Finite values by seed.
        confidence: The confidence of the interval, between 0 and 1.

    Returns:
        ``first`` minus ``second`` over the seeds in both; ``None`` if there are none.

    Raises:
        ConfigurationError: SciPy is not installed.
    """
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return None
    differences = [first[seed] - second[seed] for seed in seeds]
    center = mean(differences)
    if len(seeds) == 1:
        return PairedDifference(1, center)
    equal = rounding(*(value for seed in seeds for value in (first[seed], second[seed])))
    if max(differences) - min(differences) <= equal:
        center = 0.0 if abs(center) <= equal else center
        return PairedDifference(len(seeds), center, center, center)
    check_scipy()
    from scipy.stats import ttest_1samp

    result = ttest_1samp(differences, 0.0)
    interval = result.confidence_interval(confidence)
    return PairedDifference(len(seeds), center, float(interval.low), float(interval.high), float(result.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for the number of tests.

    The method of Holm (1979), *A simple sequentially rejective multiple test procedure*.

    Args:
        p_values: The p-values of all tests.

    Returns:
        The adjusted p-values, in the same order. If all hypotheses with adjusted values below 5 % are rejected,
        the probability that a true one is among them is at most 5 %.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def word_for(difference: PairedDifference, mode: str, tolerance: float, equal: float = 0.0) -> Word:
    """Says in a word how a training compares with the dense one.

    Args:
        difference: The training minus the dense one.
        mode: ``"max"`` if larger values are better, ``"min"`` if smaller ones are.
        tolerance: How much worse still matches, in units of the metric, at least 0.
        equal: How far apart values are that differ only by rounding.

    Returns:
        ``"winning"`` if the whole interval is better than 0; otherwise ``"matching"`` if no part of it is worse
        than 0 by more than the tolerance; otherwise ``"worse"`` if all of it is worse than 0. Otherwise, and for
        fewer than 3 seeds, ``"inconclusive"``.
    """
    if difference.n < ENOUGH_SEEDS or difference.low is None or difference.high is None:
        return "inconclusive"
    low, high = (difference.low, difference.high) if mode == "max" else (-difference.high, -difference.low)
    if low > equal:
        return "winning"
    if low >= -tolerance - equal:
        return "matching"
    return "worse" if high < -equal else "inconclusive"


def check_scipy() -> None:
    """Checks that SciPy is installed.

    Raises:
        ConfigurationError: It is not.
    """
    if not has_scipy():
        raise ConfigurationError(
            "A verdict needs SciPy, which is not installed. Write pip install 'lightning-lottery[study]'."
        )


def has_scipy() -> bool:
    """Whether SciPy is installed."""
    return find_spec("scipy") is not None

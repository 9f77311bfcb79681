"""The learning curve of one training, over the seeds of a study."""

from collections.abc import Sequence
from math import isfinite
from statistics import mean

Curve = Sequence[tuple[int, float]]


def mean_curve(curves: Sequence[Curve]) -> list[tuple[int, float]]:
    """The mean of the learning curves of several seeds.

    Args:
        curves: For each seed, pairs of step and value. Of several values at one step, the last one counts. Seeds
            with an empty curve are left out.

    Returns:
        Pairs of step and mean value, for the steps at which every curve has a finite value, so that the mean is
        always one of the same seeds.
    """
    by_step = [{step: value for step, value in curve if isfinite(value)} for curve in curves if curve]
    if not by_step:
        return []
    common = set(by_step[0]).intersection(*by_step[1:])
    return [(step, mean(values[step] for values in by_step)) for step in sorted(common)]

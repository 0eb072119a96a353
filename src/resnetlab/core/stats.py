"""Statistics over seeds: mean, standard deviation, and intervals and tests of paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from resnetlab.core.randomness import generator

RESAMPLES = 9999
"""Resamples of a bootstrap."""
ROUNDING = 1e-12
"""Differences that are nearer to each other than this, relative to the values, are equal but for their last bits."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """n values of one quantity: their mean and their standard deviation (n - 1 in the denominator; None for n = 1)."""

    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean of n paired differences, with the interval that covers the true one in ``level`` of such studies.

    ``low`` and ``high`` are None for n = 1, where nothing is known of the spread.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the difference is significant at 1 - ``level``; never so for n = 1, nor where all seeds differ by the
        same: errors are counted in images, so that this is no certainty (see ``paired_p``)."""
        if self.low is None or self.high is None or self.low == self.high:
            return False
        return self.low > 0 or self.high < 0


def sample(values: Sequence[float]) -> Sample:
    """Mean and standard deviation. Raises ``statistics.StatisticsError`` for no values."""
    return Sample(n=len(values), mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


def paired_interval(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean of first[i] - second[i]: d̄ ± t(n - 1) · s_d / √n.

    ``first[i]`` and ``second[i]`` must come from the same seed. It takes the differences for normal; with the few
    seeds of a study that can't be checked, so the page prints every value beside it.
    """
    differences = subtract(first, second)
    n, mean = len(differences), fmean(differences)
    if n == 1:
        return Interval(n=1, mean=mean, low=None, high=None, level=level)
    from scipy.special import stdtrit

    reach = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(differences) / sqrt(n)
    return Interval(n=n, mean=mean, low=mean - reach, high=mean + reach, level=level)


def subtract(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """first[i] - second[i]. Raises ``ValueError`` where they differ in number."""
    if len(first) != len(second):
        raise ValueError(f"paired values differ in number: {len(first)} and {len(second)}")
    return [a - b for a, b in zip(first, second, strict=True)]


def bootstrap_interval(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """The BCa interval of the mean of first[i] - second[i]: bias-corrected and accelerated.

    The bounds are quantiles of the means of ``resamples`` draws with replacement, at Φ(z₀ + (z₀ + z)/(1 - a(z₀ + z)))
    for z = ±Φ⁻¹((1 + level)/2): z₀ is from the share of these means below the mean, a from the jackknife (Efron 1987,
    JASA 82:171). It takes nothing for normal, but with few values it is too narrow: no draw lies outside of them. The
    draws are a function of n alone. Equal differences have an interval of no width.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    differences = np.array(subtract(first, second))
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Interval(n=1, mean=mean, low=None, high=None, level=level)
    if np.ptp(differences) <= ROUNDING * np.abs([*first, *second]).max():
        return Interval(n=n, mean=mean, low=mean, high=mean, level=level)
    # In rising order, so that draws of the same values have equal means, to the last bit.
    draws = np.sort(generator(0, "bootstrap", n).integers(0, n, (resamples, n)), axis=1)
    means = differences[draws].mean(axis=1)
    bias = ndtri(((means < mean).mean() + (means <= mean).mean()) / 2)
    # The mean without value i is below the mean of these by (differences[i] - mean)/(n - 1); the factor cancels.
    off = differences - mean
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    shifted = bias + ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(means, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return Interval(n=n, mean=mean, low=float(low), high=float(high), level=level)


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired test that the mean of first[i] - second[i] is 0; None for n = 1.

    Where all differences are equal it is 1 for differences of 0, else None: errors are counted in images, so that a
    few seeds may differ by one image each, and a test that takes this for no spread at all would call it certain.
    """
    from scipy.special import stdtr

    differences = subtract(first, second)
    n = len(differences)
    if n == 1:
        return None
    rounding = ROUNDING * max(map(abs, (*first, *second)))
    if max(differences) - min(differences) <= rounding:
        return 1.0 if max(map(abs, differences)) <= rounding else None
    t = fmean(differences) / (stdev(differences) / sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def holm(values: Sequence[float]) -> list[float]:
    """Each p adjusted for all of them: with any number of true hypotheses, the chance that one of these is below α is
    at most α.

    In rising order the i-th of m, from 0, is multiplied by m - i; none is below the one before (Holm 1979).
    """
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, least = [0.0] * len(values), 0.0
    for passed, place in enumerate(order):
        least = max(least, min(1.0, (len(values) - passed) * values[place]))
        adjusted[place] = least
    return adjusted

"""Statistics over seeds: mean, standard deviation, and intervals of paired differences."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev


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
        """Whether the difference is significant at 1 - ``level``; never so for n = 1."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def sample(values: Sequence[float]) -> Sample:
    """Mean and standard deviation. Raises ``statistics.StatisticsError`` for no values."""
    return Sample(n=len(values), mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


def paired_interval(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean of first[i] - second[i]: d̄ ± t(n - 1) · s_d / √n.

    ``first[i]`` and ``second[i]`` must come from the same seed. It takes the differences for normal; with the few
    seeds of a study that can't be checked, so the page prints every value beside it.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values differ in number: {len(first)} and {len(second)}")
    differences = [a - b for a, b in zip(first, second, strict=True)]
    n, mean = len(differences), fmean(differences)
    if n == 1:
        return Interval(n=1, mean=mean, low=None, high=None, level=level)
    from scipy.special import stdtrit

    reach = float(stdtrit(n - 1, (1 + level) / 2)) * stdev(differences) / sqrt(n)
    return Interval(n=n, mean=mean, low=mean - reach, high=mean + reach, level=level)

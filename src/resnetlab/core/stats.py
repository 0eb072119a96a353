"""Statistics over seeds: mean, standard deviation, intervals and tests of paired differences, and counts of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from resnetlab.core.randomness import generator

if TYPE_CHECKING:
    import numpy as np

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

    ``low`` and ``high`` are None where the seeds show no variation to reckon with: for n = 1, and where all
    differences are equal.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    level: float

    @classmethod
    def upgrade(cls, plain: dict[str, Any]) -> dict[str, Any]:
        """Records once gave equal differences an interval of no width, as if they were certain."""
        if plain.get("low") is None or plain["low"] != plain.get("high"):
            return plain
        return plain | {"low": None, "high": None}


@dataclass(frozen=True, kw_only=True)
class Share:
    """``count`` of ``n`` runs, with the interval that covers the true share in at least ``level`` of such studies."""

    count: int
    n: int
    low: float
    high: float
    level: float


def sample(values: Sequence[float]) -> Sample:
    """Mean and standard deviation. Raises ``statistics.StatisticsError`` for no values."""
    return Sample(n=len(values), mean=fmean(values), sd=stdev(values) if len(values) > 1 else None)


def paired_interval(first: Sequence[float], second: Sequence[float], level: float = 0.95) -> Interval:
    """Student's interval of the mean of first[i] - second[i]: d̄ ± t(n - 1) · s_d / √n.

    ``first[i]`` and ``second[i]`` must come from the same seed. It takes the differences for normal; the few seeds of a
    study cannot check that, so the page shows every run beside it. Equal differences have no interval: a spread of zero
    over a few seeds is no certainty.
    """
    known = _without_test(first, second, level)
    if known:
        return known
    from scipy.stats import ttest_rel

    low, high = ttest_rel(first, second).confidence_interval(level)
    return Interval(n=len(first), mean=_mean_difference(first, second), low=float(low), high=float(high), level=level)


def bootstrap_interval(
    first: Sequence[float], second: Sequence[float], level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """The BCa bootstrap interval of the mean of first[i] - second[i] (Efron 1987, JASA 82:171).

    It takes nothing for normal, but with few values it is too narrow: no resample lies outside of them. The resamples
    are a function of n alone. Equal differences have no interval.
    """
    known = _without_test(first, second, level)
    if known:
        return known
    import numpy as np
    from scipy.stats import bootstrap

    def mean(values: "np.ndarray", axis: int) -> "np.ndarray":
        # In rising order, so that resamples of the same values have equal means, to the last bit.
        result: np.ndarray = np.sort(values, axis=axis).mean(axis=axis)
        return result

    n = len(first)
    found = bootstrap(
        (np.array(first) - np.array(second),),
        mean,
        n_resamples=resamples,
        confidence_level=level,
        method="BCa",
        random_state=generator(0, "bootstrap", n),
    ).confidence_interval
    return Interval(
        n=n, mean=_mean_difference(first, second), low=float(found.low), high=float(found.high), level=level
    )


def paired_p(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired test that the mean of first[i] - second[i] is 0; None for n = 1.

    Where all differences are equal it is 1 for differences of 0, else None: errors are counted in images, so a few
    seeds may differ by one image each, and a test that takes this for no variation at all would call it certain.
    """
    known = _without_test(first, second, 0.95)
    if known:
        return 1.0 if known.n > 1 and abs(known.mean) <= _rounding(first, second) else None
    from scipy.stats import ttest_rel

    return float(ttest_rel(first, second).pvalue)


def _without_test(first: Sequence[float], second: Sequence[float], level: float) -> Interval | None:
    """One difference, or equal ones, for which there is no interval and no test; None for all others.

    Raises ``ValueError`` where the values differ in number.
    """
    if len(first) != len(second):
        raise ValueError(f"paired values differ in number: {len(first)} and {len(second)}")
    mean, n = _mean_difference(first, second), len(first)
    if n == 1:
        return Interval(n=1, mean=mean, low=None, high=None, level=level)
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if max(differences) - min(differences) <= _rounding(first, second):
        return Interval(n=n, mean=mean, low=None, high=None, level=level)
    return None


def _mean_difference(first: Sequence[float], second: Sequence[float]) -> float:
    return fmean(a - b for a, b in zip(first, second, strict=True))


def _rounding(first: Sequence[float], second: Sequence[float]) -> float:
    return ROUNDING * max(map(abs, (*first, *second)))


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


def exact_share(count: int, n: int, level: float = 0.95) -> Share:
    """Clopper and Pearson's interval of a share (1934, Biometrika 26:404): the shares for which ``count`` or fewer of
    ``n``, and ``count`` or more, have a chance above (1 - level)/2 each."""
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(level, method="exact")
    return Share(count=count, n=n, low=float(low), high=float(high), level=level)


def wilson_share(count: int, n: int, level: float = 0.95) -> Share:
    """Wilson's interval of a share (1927, JASA 22:209), for the accuracy on ``n`` images: the shares p from which
    ``count`` / ``n`` lies within z · √(p (1 - p) / n)."""
    from scipy.stats import binomtest

    low, high = binomtest(count, n).proportion_ci(level, method="wilson")
    return Share(count=count, n=n, low=float(low), high=float(high), level=level)


def largest_share(count: int, n: int, level: float = 0.95) -> float:
    """The one-sided upper bound of Clopper and Pearson: the share of which ``count`` or fewer of ``n`` have a chance of
    1 - level. For a count of 0 it is 1 - (1 - level)^(1/n): 63 % of three, 14 % of twenty."""
    from scipy.stats import binomtest

    return float(binomtest(count, n, alternative="less").proportion_ci(level, method="exact").high)


def sign_p(more: int, less: int) -> float:
    """Two-sided p of the exact sign test, which on counts of yes and no is McNemar's: of ``more + less`` pairs that
    differ, either way has a chance of one half. Nothing is taken for normal; five pairs that agree give 0.0625."""
    from scipy.stats import binomtest

    return float(binomtest(more, more + less).pvalue) if more + less else 1.0

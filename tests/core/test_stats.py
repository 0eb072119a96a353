"""Intervals and tests of paired differences against their formulas, and Holm's rule against the closed procedure."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats as reference

from resnetlab.core.randomness import generator
from resnetlab.core.serialize import from_plain
from resnetlab.core.stats import (
    Interval,
    bootstrap_interval,
    exact_share,
    holm,
    largest_share,
    paired_interval,
    paired_p,
    sign_p,
)

RNG = np.random.default_rng(0)
# Multiples of 2^-10, whose sums are exact: scipy takes two means for different ones where their sums were rounded.
PAIRS = [
    (list(np.round(RNG.normal(0.3, 0.1, n) * 1024) / 1024), list(np.round(RNG.exponential(0.3, n) * 1024) / 1024))
    for n in (3, 3, 4, 5, 8, 20)
    for _ in range(5)
]


def efron(differences: np.ndarray, level: float, resamples: int = 9999) -> tuple[float, float]:
    """BCa by its formula: quantiles of the resampled means at Φ(z₀ + (z₀ + z)/(1 - a(z₀ + z))), z = ±Φ⁻¹(½ + level/2),
    where z₀ is from the fraction of these means below the mean, a from the jackknife."""
    n = len(differences)
    draws = generator(0, "bootstrap", n).integers(0, n, (resamples, n))
    means, mean = np.sort(differences[draws], axis=1).mean(axis=1), np.sort(differences).mean()
    bias = reference.norm.ppf(((means < mean).mean() + (means <= mean).mean()) / 2)
    off = differences - mean
    acceleration = (off**3).sum() / (6 * (off**2).sum() ** 1.5)
    shifted = bias + reference.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(means, reference.norm.cdf(bias + shifted / (1 - acceleration * shifted)))
    return low, high


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"n={len(first)}" for first, _ in PAIRS])
def test_p_and_intervals_of_paired_values_are_those_of_their_formulas(first, second):
    n, differences = len(first), np.array(first) - np.array(second)
    mean, error = differences.mean(), differences.std(ddof=1) / np.sqrt(n)
    assert paired_p(first, second) == pytest.approx(2 * reference.t.sf(abs(mean / error), n - 1), rel=1e-9)
    interval, reach = paired_interval(first, second), reference.t.ppf(0.975, n - 1) * error
    assert (interval.mean, interval.low, interval.high) == pytest.approx((mean, mean - reach, mean + reach), rel=1e-9)
    found = bootstrap_interval(first, second)
    assert (found.low, found.high) == pytest.approx(efron(differences, 0.95), rel=1e-9)
    assert found.n == n


def test_bca_differs_from_percentiles_where_the_differences_are_skewed():
    """The control of the test above: the plain quantiles are another interval."""
    first, second = PAIRS[-1]
    differences = np.array(first) - np.array(second)
    plain = reference.bootstrap(
        (differences,), np.mean, n_resamples=9999, method="percentile", rng=generator(0, "bootstrap", len(first))
    ).confidence_interval
    assert bootstrap_interval(first, second).low != pytest.approx(plain.low, rel=1e-6)


def test_bootstrap_is_the_same_at_every_call_and_within_the_values():
    first, second = PAIRS[0]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    found = bootstrap_interval(first, second)
    assert found == bootstrap_interval(first, second)
    assert min(differences) <= found.low < found.high <= max(differences)


def test_bootstrap_of_few_seeds_covers_too_little_and_student_does_not():
    """What docs/studies.md says of 95 % intervals of three normal differences."""
    covered = [0, 0]
    for differences in RNG.normal(size=(400, 3)):
        pair = list(differences), [0.0] * 3
        for place, interval in enumerate((bootstrap_interval(*pair), paired_interval(*pair))):
            covered[place] += interval.low <= 0 <= interval.high
    assert 0.64 < covered[0] / 400 < 0.78
    assert 0.92 < covered[1] / 400 < 0.98


def test_one_seed_has_a_difference_and_nothing_more():
    assert paired_p([0.5], [0.2]) is None
    found = bootstrap_interval([0.5], [0.25])
    assert (found.n, found.mean, found.low, found.high) == (1, 0.25, None, None)


def test_equal_differences_have_no_interval():
    """A spread of zero over a few seeds is no certainty."""
    for first, second, p in (([1.0] * 3, [0.5] * 3, None), ([1.0] * 3, [1.0] * 3, 1.0), ([0.0] * 2, [0.0] * 2, 1.0)):
        for found in (bootstrap_interval(first, second), paired_interval(first, second)):
            assert (found.low, found.high, found.mean) == (None, None, first[0] - second[0])
        assert paired_p(first, second) == p


def test_interval_of_no_width_in_an_older_record_is_read_as_none():
    plain = {"n": 3, "mean": 0.02, "low": 0.02, "high": 0.02, "level": 0.95}
    assert from_plain(Interval, plain, "old") == Interval(n=3, mean=0.02, low=None, high=None, level=0.95)
    kept = plain | {"low": 0.01}
    assert from_plain(Interval, kept, "old").low == 0.01


def test_one_image_more_in_every_seed_is_no_certainty():
    """7, 6 and 5 of 360 images minus 6, 5 and 4: equal but for the last bits, for which scipy's p is some 1e-30."""
    first, second = [7 / 360, 6 / 360, 5 / 360], [6 / 360, 5 / 360, 4 / 360]
    differences = [a - b for a, b in zip(first, second, strict=True)]
    assert len(set(differences)) > 1
    assert paired_p(first, second) is None
    assert (bootstrap_interval(first, second).low, paired_interval(first, second).high) == (None, None)


@pytest.mark.parametrize(("count", "n"), [(0, 3), (3, 3), (1, 5), (3, 5), (14, 20), (0, 1)])
def test_exact_share_is_clopper_and_pearsons_by_the_beta_distribution(count, n):
    found = exact_share(count, n)
    low = reference.beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = reference.beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    # What it is by definition: at the bounds, such a count or a further one has a chance of 2.5 %.
    if count < n:
        assert reference.binom.cdf(count, n, found.high) == pytest.approx(0.025, rel=1e-6)
    if count:
        assert reference.binom.sf(count - 1, n, found.low) == pytest.approx(0.025, rel=1e-6)


def test_no_failing_run_of_n_bounds_the_share_that_fails():
    for n, told in ((2, "78"), (3, "63"), (5, "45"), (10, "26"), (20, "14")):
        assert largest_share(0, n) == pytest.approx(1 - 0.05 ** (1 / n), rel=1e-9)
        assert f"{100 * largest_share(0, n):.0f}" == told
    assert largest_share(2, 7) == pytest.approx(reference.beta.ppf(0.95, 3, 5), rel=1e-9)
    assert largest_share(3, 3) == 1.0


def test_exact_share_covers_at_least_as_often_as_it_says():
    """By enumeration, for every n to 20: the counts whose interval has the true share in it have 95 % or more."""
    for n in (3, 5, 10, 20):
        intervals = [exact_share(count, n) for count in range(n + 1)]
        for true in (0.02, 0.1, 0.5, 0.8, 0.9):
            inside = [one.count for one in intervals if one.low <= true <= one.high]
            assert reference.binom.pmf(inside, n, true).sum() >= 0.95


def test_sign_test_is_the_binomial_one_by_hand():
    """3 of 3: 2 · 1/8. 4 against 1: 2 · (1 + 5)/32. McNemar's of 5 against 0: 2/32."""
    assert [sign_p(*counts) for counts in ((3, 0), (4, 1), (0, 5), (2, 2), (0, 0))] == pytest.approx(
        [0.25, 0.375, 0.0625, 1.0, 1.0]
    )


def test_values_of_unequal_number_are_refused():
    for function in (paired_interval, bootstrap_interval, paired_p):
        with pytest.raises(ValueError, match="differ in number"):
            function([1.0, 2.0], [1.0])


def closed(values):
    """Holm's p the long way: the largest Bonferroni p of every set of hypotheses that has this one in it."""
    places = range(len(values))
    sets = [chosen for size in range(1, len(values) + 1) for chosen in combinations(places, size)]
    return [max(min(1.0, len(s) * min(values[k] for k in s)) for s in sets if place in s) for place in places]


def test_holm_is_the_closed_procedure_of_bonferroni():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    for count in range(1, 8):
        values = list(RNG.uniform(0, 0.3, count) ** 2)
        assert holm(values) == pytest.approx(closed(values), rel=1e-12)
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_one_false_alarm():
    """Ten true hypotheses, 2,000 times: at 5 % some p is below in 5 % of the studies, uncorrected in 40 %."""
    studies = RNG.uniform(size=(2000, 10))
    corrected = np.mean([min(holm(list(p))) < 0.05 for p in studies])
    assert 0.035 < corrected < 0.065
    assert np.mean(studies.min(axis=1) < 0.05) > 0.35

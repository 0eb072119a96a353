"""Which runs trained, by hand; and how often intervals and verdicts are right, by a short run of the benchmark."""

import runpy

import pytest

from resnetlab.study.outcomes import Outcomes, count_pairs
from tests.conftest import ROOT
from tests.made import study_runs

X, Y = {"x": "a"}, {"x": "b"}


def outcomes(a, b=(0.0,)):
    return Outcomes(study_runs(["x"], {("a",): a, ("b",): b}))


def test_run_trained_within_ten_points_of_the_best_one():
    found = outcomes([0.0, 0.0999, 0.1, None])
    assert found.below == pytest.approx(0.1)
    assert found.trained(X) == {0: True, 1: True, 2: False, 3: False}
    assert outcomes([0.3, 0.39, 0.41], [0.3]).trained(X) == {0: True, 1: True, 2: False}


def test_half_of_the_way_to_guessing_counts_where_it_is_nearer():
    """Ten classes of equal size: guessing has 90 %. From 76 % half of the way is 83 %."""
    found = outcomes([0.76, 0.82, 0.84], [0.80])
    assert found.below == pytest.approx(0.83)
    assert found.trained(X) == {0: True, 1: True, 2: False}


def test_no_run_trained_where_the_best_is_hardly_better_than_guessing():
    found = outcomes([0.85, 0.9], [0.9])
    assert not any(found.trained(X).values())
    assert found.are_untrained(X, Y)
    assert not found.is_mixed(X, Y)


def test_condition_is_mixed_where_some_of_its_runs_trained():
    found = outcomes([0.0, 0.9], [0.9, 0.9])
    assert (found.is_mixed(X), found.is_mixed(Y), found.is_mixed(Y, X)) == (True, False, True)
    assert outcomes([0.0, None], [0.0]).is_mixed(X)


def test_study_of_which_no_run_finished_has_no_stated_error():
    found = outcomes([None], [None])
    assert (found.below, found.share(X), found.compare(X, Y), found.are_untrained(X)) == (None, None, None, False)


def test_pairs_within_the_margin_count_for_neither():
    """0.04 - 0.03 is above 0.01 by its last bit alone."""
    assert 0.04 - 0.03 > 0.01
    found = count_pairs([0.02, 0.04 - 0.03, -0.02, 0.0, 0.5], margin=0.01)
    assert (found.n, found.more, found.less) == (5, 2, 1)
    assert found.p == pytest.approx(1.0)


@pytest.mark.parametrize(("chance", "n"), [(None, 3), (0.5, 3), (0.9, 3), (0.9, 10)])
def test_coverage_is_what_the_documents_say(chance, n):
    """150 studies each: Student's interval is right for normal errors, far too narrow for runs that train or do not;
    exact intervals and bounds hold for both, and "grows" is seldom said of nets that are alike."""
    found = runpy.run_path(str(ROOT / "benchmarks" / "coverage.py"))["measure"](chance, n, 150)
    assert found["grows"] <= 0.05
    if chance is None:
        assert 0.90 <= found["student"] <= 1.0
        return
    # A run of one kind alone leaves an interval around that kind.
    alike = chance**n + (1 - chance) ** n
    assert found["student"] == pytest.approx(1 - alike, abs=0.12)
    assert found["share"] >= 0.93
    assert found["bound"] >= 0.93
    assert found["unseen"] <= chance**n + 0.1

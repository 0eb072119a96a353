"""Conditions and contrasts against values by hand, and the figures of the kept studies against those of format 1."""

import json
from math import sqrt
from pathlib import Path

import pytest

from resnetlab.core.stats import holm, paired_interval, paired_p
from resnetlab.study import read_results
from resnetlab.study.results import make_record
from resnetlab.study.statistics import adjust, compared_axes, make_conditions, make_contrasts, reference_first
from tests.conftest import ROOT
from tests.made import study_runs

AXES = {"x": ("a", "b"), "y": ("1", "2")}
ERRORS = {("a", "1"): [0.5, 0.52, 0.55], ("a", "2"): [0.1, None, 0.16], ("b", "1"): [0.4, 0.44, 0.47]}
RUNS = study_runs(AXES, ERRORS)


def test_conditions_count_seeds_and_runs_that_diverged():
    found = make_conditions(RUNS)
    assert [tuple(one.values.values()) for one in found] == list(ERRORS)
    assert [(one.train_error.n, one.diverged) for one in found] == [(3, 0), (2, 1), (3, 0)]
    assert found[1].train_error.mean == pytest.approx(0.13)
    (lost,) = make_conditions(study_runs(["x"], {("a",): [None]}))
    assert (lost.train_error, lost.diverged) == (None, 1)


def test_contrasts_are_paired_by_seed_against_the_first_value_of_each_axis():
    found = make_contrasts(RUNS, AXES)
    assert [(c.axis, c.first, c.value, c.others) for c in found] == [
        ("x", "a", "b", {"y": "1"}),
        ("y", "1", "2", {"x": "a"}),
    ]
    pairs = [([0.4, 0.44, 0.47], [0.5, 0.52, 0.55]), ([0.1, 0.16], [0.5, 0.55])]
    for contrast, pair in zip(found, pairs, strict=True):
        assert contrast.train_error.student == paired_interval(*pair)
        assert contrast.train_error.p == paired_p(*pair)
    assert [c.train_error.adjusted for c in found] == holm([paired_p(*pair) for pair in pairs])
    assert [c.test_error.adjusted for c in found] == holm([c.test_error.p for c in found])
    assert [c.train_error.counts.adjusted for c in found] == holm([c.train_error.counts.p for c in found])


def test_two_seeds_are_never_significant_and_three_may_be():
    """With two, runs that train with a chance of one half differ in both seeds, and alike, in one study of eight."""
    for seeds, significant in ((2, False), (3, True)):
        runs = study_runs(["x"], {("a",): [0.5, 0.501, 0.502][:seeds], ("b",): [0.1, 0.1, 0.101][:seeds]})
        (found,) = make_contrasts(runs, {"x": ["a", "b"]})
        assert found.train_error.adjusted < 0.05
        assert found.train_error.significant == significant


def test_runs_that_trained_are_counted_and_compared_by_mcnemars_test():
    """The lowest error is 0: a run below 10 % trained. One that diverged did not; a fails in two seeds of six."""
    runs = study_runs(["x"], {("a",): [0.0, 0.02, 0.3, 0.09, 0.5, 0.01], ("b",): [0.6, None, 0.1, 0.7, 0.0, 0.8]})
    first, other = make_conditions(runs)
    assert (first.trained.count, first.trained.n) == (4, 6)
    assert (other.trained.count, other.trained.n, other.diverged) == (1, 6, 1)
    assert (first.trained.low, first.trained.high) == pytest.approx((0.2228, 0.9567), abs=1e-4)
    (found,) = make_contrasts(runs, {"x": ["a", "b"]})
    # In seeds 0, 1, 3 and 5 only a trained, in seed 4 only b: 2 · (1 + 5)/32.
    assert (found.trained.n, found.trained.more, found.trained.less) == (6, 1, 4)
    assert found.trained.p == pytest.approx(0.375)
    assert found.train_error.bimodal


def test_bimodal_difference_needs_the_exact_test_as_well():
    """Five seeds that are all worse have p = 2/32; where neither net is of two kinds the t-test alone decides."""
    bad = [0.5, 0.52, 0.55, 0.51, 0.53]
    for good, bimodal in (([0.0, 0.01, 0.0, 0.02, 0.0], False), ([0.0, 0.2, 0.0, 0.01, 0.0], True)):
        (found,) = make_contrasts(study_runs(["x"], {("a",): good, ("b",): bad}), {"x": ["a", "b"]})
        assert (found.train_error.bimodal, found.train_error.significant) == (bimodal, not bimodal)
        assert found.train_error.adjusted < 0.01
        assert found.train_error.counts.p == pytest.approx(0.0625)


def test_nets_at_chance_are_untrained_and_none_of_them_trained():
    """Ten classes of equal size: guessing has 90 %, and up to 81 % a net is untrained."""
    runs = study_runs(["x"], {("a",): [0.9, 0.89, 0.88], ("b",): [0.9, 0.9, 0.82], ("c",): [0.9, 0.9, 0.80]})
    a, b, c = make_conditions(runs)
    assert [one.untrained for one in (a, b, c)] == [True, True, False]
    assert [one.untrained for one in make_contrasts(runs, {"x": ["a", "b", "c"]})] == [True, False]
    lost = make_conditions(study_runs(["x"], {("a",): [0.9, 0.89], ("b",): [0.9, 0.88]}))
    assert [one.trained.count for one in lost] == [0, 0]


def test_bounds_of_a_contrast_are_those_of_students_t_by_hand():
    """Differences 0.1, 0.2, 0.6: mean 0.3, s² = (0.04 + 0.01 + 0.09)/2, and t_2 = p √(2/(1 - p²)) for the level p."""
    runs = study_runs(["x"], {("a",): [0.2, 0.3, 0.4], ("b",): [0.3, 0.5, 1.0]})
    (found,) = make_contrasts(runs, {"x": ["a", "b"]})
    reach = 0.95 * sqrt(2 / (1 - 0.95**2)) * sqrt(0.07 / 3)
    student = found.train_error.student
    assert (student.mean, student.low, student.high) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach), abs=1e-10)
    _, other = make_conditions(runs)
    assert (other.train_error.mean, other.train_error.sd) == pytest.approx((0.6, sqrt(0.13)), abs=1e-10)


def test_plain_nets_are_compared_with_residual_ones_and_depths_by_the_verdict():
    axes = {"shortcut": ["none", "A", "B"], "depth": ["8", "20"], "training.lr": ["1", "2"]}
    assert reference_first(axes) == axes | {"shortcut": ["A", "B", "none"]}
    assert compared_axes(axes) == ["shortcut", "training.lr"]
    for other in ({"depth": ["8", "20"]}, {"shortcut": ["A", "B"], "depth": ["8", "20"]}):
        assert compared_axes(other) == list(other)
    runs = study_runs(["shortcut", "depth"], {("none", "8"): [0.5, 0.6], ("default", "8"): [0.1, 0.1]})
    (found,) = make_contrasts(runs, {"shortcut": ["none", "default"], "depth": ["8"]})
    assert (found.first, found.value, found.others) == ("default", "none", {"depth": "8"})
    assert found.train_error.student.mean == pytest.approx(0.45)


def test_what_no_seed_finished_has_no_difference_and_one_seed_no_p():
    runs = study_runs(["x"], {("a",): [0.5], ("b",): [None], ("c",): [0.3]})
    lost, one = make_contrasts(runs, {"x": ("a", "b", "c")})
    assert lost.test_error is None
    assert (one.test_error.student.n, one.test_error.p, one.test_error.adjusted) == (1, None, None)
    assert not one.test_error.significant
    assert adjust([None]) == [None]


FORMER = json.loads((Path(__file__).parent / "former_figures.json").read_text())
SHORTCUTS = {"plain": "none", "residual": "default"}


@pytest.mark.parametrize("name", FORMER)
def test_kept_studies_have_the_figures_that_format_1_had(name):
    """Means, deviations and intervals of plain minus residual, and of depths, from the same runs.

    Where format 1 had an interval of no width, there is none.
    """
    study, former = read_results(ROOT / "docs" / f"{name}.json"), FORMER[name]
    conditions = {tuple(one.values.values()): one for one in study.conditions}
    contrasts = {one.others["depth"]: one for one in study.contrasts}
    assert len(conditions) == len(former["cells"])
    for kind, depth, diverged, *figures in former["cells"]:
        one = conditions[SHORTCUTS[kind], str(depth)]
        samples = (one.train_loss, one.train_error, one.test_error)
        assert one.diverged == diverged
        assert [figure for s in samples for figure in (s.n, s.mean, s.sd)] == pytest.approx(figures, rel=1e-12)
    for depth, quantity, *figures in former["pairs"]:
        found = getattr(contrasts[str(depth)], quantity).student
        assert (contrasts[str(depth)].value, contrasts[str(depth)].first) == ("none", "default")
        assert [found.n, found.mean] == pytest.approx(figures[:2], rel=1e-9, abs=1e-15)
        assert [found.low, found.high] == bounds(*figures[2:])
    steps = [
        (v.values["shortcut"], s.shallow, s.deep, s.train_error.mean, s.train_error.low, s.train_error.high)
        for v in study.verdicts
        for s in v.steps
    ]
    assert [step[:3] for step in steps] == [(SHORTCUTS[kind], *depths) for kind, *depths in _heads(former["steps"])]
    for step, (*_, mean, low, high, _) in zip(steps, former["steps"], strict=True):
        assert step[3] == pytest.approx(mean, rel=1e-9, abs=1e-15)
        assert [*step[4:]] == bounds(low, high)


def bounds(low, high):
    """Bounds of format 1, which had equal ones where there is no interval."""
    return [None, None] if low == high else pytest.approx([low, high], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("study/digits", ["grows", "undecided"]),
        ("study/fashion-mnist", ["grows", "undecided"]),
        ("study/digits-slow", ["untrained", "undecided"]),
        ("demo/results", ["grows", "does not grow"]),
        ("demo/two-threads", ["undecided", "does not grow"]),
    ],
)
def test_kept_records_have_the_statistics_of_today(name, answers):
    """Everything but the runs is made again from them: what a document draws is by the rules that it prints."""
    study = read_results(ROOT / "docs" / f"{name}.json")
    assert [verdict.answer for verdict in study.verdicts] == answers
    again = make_record(study.runs, study.axes, study.planned, study.settings, study.command)
    for found, made in zip(study.contrasts, again.contrasts, strict=True):
        assert found.train_error.student.mean == pytest.approx(made.train_error.student.mean, abs=1e-15)
        assert found.test_error.significant == made.test_error.significant
    assert study.trained_below == pytest.approx(again.trained_below)
    assert [v.reason for v in study.verdicts] == [v.reason for v in again.verdicts]
    assert study.conditions == again.conditions


def _heads(steps):
    return [step[:3] for step in steps]

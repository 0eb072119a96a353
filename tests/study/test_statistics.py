"""Conditions and contrasts against values by hand, and the figures of the kept studies against those of format 1."""

import json
from math import sqrt
from pathlib import Path

import pytest

from resnetlab.core.stats import holm, paired_interval, paired_p
from resnetlab.study import read_results
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
    """Means, deviations, intervals of plain minus residual, and verdicts, from the same runs."""
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
        assert [found.n, found.mean, found.low, found.high] == pytest.approx(figures, rel=1e-9, abs=1e-15)
    assert [[v.values["shortcut"], v.answer, v.reason] for v in study.verdicts] == [
        [SHORTCUTS[kind], *rest] for kind, *rest in former["verdicts"]
    ]
    steps = [
        (v.values["shortcut"], s.shallow, s.deep, s.train_error.mean, s.train_error.low, s.train_error.high)
        for v in study.verdicts
        for s in v.steps
    ]
    assert [step[:3] for step in steps] == [(SHORTCUTS[kind], *depths) for kind, *depths in _heads(former["steps"])]
    for step, (*_, mean, low, high, _) in zip(steps, former["steps"], strict=True):
        assert step[3:] == pytest.approx((mean, low, high), rel=1e-9, abs=1e-15)


def _heads(steps):
    return [step[:3] for step in steps]

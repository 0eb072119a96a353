from itertools import product
from math import sqrt

import pytest

from resnetlab.study.degradation import MARGIN, RULE, make_verdicts
from tests.made import study_runs

SHORTCUTS = {"plain": "none", "residual": "default"}


def verdicts(errors: dict[tuple[str, int], list[float | None]]):
    """The verdicts on runs of these training errors by (kind, depth), a seed a value; None is a run that diverged."""
    places = {(SHORTCUTS[kind], str(depth)): values for (kind, depth), values in errors.items()}
    axes = {name: list(dict.fromkeys(place[n] for place in places)) for n, name in enumerate(("shortcut", "depth"))}
    return make_verdicts(study_runs(axes, places), axes)


GRID = {
    ("plain", 8): [0.00, 0.01, 0.02],
    ("plain", 56): [0.60, 0.70, 0.65],
    ("residual", 8): [0.00, 0.01, 0.02],
    ("residual", 56): [0.000, 0.001, 0.002],
}


def test_bounds_of_a_verdict_are_widened_for_three_comparisons_by_hand():
    """One-sided 95 % bounds over three pairs of depths: the two-sided level 1 - 2 · 0.05 / 3, in the closed form."""
    made = {("plain", 8): [0.2, 0.3, 0.4], ("plain", 20): [0.3, 0.5, 1.0], ("plain", 56): [0.3, 0.5, 1.0]}
    (verdict,) = verdicts(made)
    level = 1 - 0.1 / 3
    reach = level * sqrt(2 / (1 - level**2)) * sqrt(0.07 / 3)
    step = next(step for step in verdict.steps if (step.shallow, step.deep) == (8, 20))
    found = step.train_error
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach), abs=1e-10)


def test_verdict_plain_grows_and_residual_does_not():
    plain, residual = verdicts(GRID)
    assert (plain.values, plain.answer) == ({"shortcut": "none"}, "grows")
    assert plain.reason.startswith("depth 56 minus depth 8 is +64.00 points [")
    assert (residual.values, residual.answer) == ({"shortcut": "default"}, "does not grow")


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ({("plain", 8): [0.0], ("plain", 56): [0.9]}, "one seed"),
        ({("plain", 8): [0.0, 0.1]}, "one depth"),
        ({("plain", 8): [0.0, 0.0], ("plain", 56): [None, None]}, "2 of 4 runs diverged"),
        ({("plain", 8): [0.0, 0.0, 0.0], ("plain", 56): [0.0, 0.0, None]}, "1 of 6 runs diverged"),
        ({("plain", 8): [0.0, 0.0, 0.0], ("plain", 56): [0.0, 0.9, 0.1]}, "depth 56 minus depth 8"),
    ],
)
def test_verdict_is_undecided_where_the_runs_do_not_tell(errors, reason):
    (verdict,) = verdicts(errors)
    assert verdict.answer == "undecided"
    assert reason in verdict.reason


def test_verdict_sees_growth_against_any_shallower_depth():
    """Depth 20 is the best one; the deepest is no worse than depth 8, and is still degraded."""
    (verdict,) = verdicts(
        {("plain", 8): [0.30, 0.31, 0.32], ("plain", 20): [0.01, 0.02, 0.01], ("plain", 56): [0.30, 0.31, 0.31]}
    )
    assert verdict.answer == "grows"
    assert "minus depth 20" in verdict.reason


def test_verdict_sees_a_degraded_depth_in_the_middle():
    (verdict,) = verdicts(
        {("plain", 8): [0.0, 0.01, 0.0], ("plain", 20): [0.60, 0.61, 0.62], ("plain", 56): [0.0, 0.0, 0.01]}
    )
    assert verdict.answer == "grows"
    assert "depth 20 minus depth 8" in verdict.reason


def test_one_image_more_is_no_growth_though_every_seed_has_it():
    (verdict,) = verdicts({("plain", 8): [0.0] * 3, ("plain", 56): [1 / 1437] * 3})
    assert verdict.answer == "does not grow"


def test_verdict_bounds_widen_with_the_number_of_comparisons():
    few, more = (
        next(step.train_error for step in verdicts(grid)[0].steps if (step.shallow, step.deep) == (8, 56))
        for grid in (GRID, GRID | {("plain", 20): [0.0, 0.01, 0.02]})
    )
    assert few.level == pytest.approx(0.90)
    assert more.level == pytest.approx(1 - 0.1 / 3)
    assert more.high - more.low > few.high - few.low


def test_every_setting_beside_depth_has_a_verdict_of_its_own():
    axes = {"shortcut": ["A", "none"], "depth": ["8", "56"], "options.norm": ["batch", "none"]}
    ends = {place: 0.6 if place == ("none", "56", "batch") else 0.01 for place in product(*axes.values())}
    found = make_verdicts(study_runs(axes, {place: [end, end + 0.001] for place, end in ends.items()}), axes)
    assert {tuple(verdict.values.values()): verdict.answer for verdict in found} == {
        place: "grows" if place == ("none", "batch") else "does not grow"
        for place in product(axes["shortcut"], axes["options.norm"])
    }


def test_study_that_does_not_ask_has_no_verdict():
    for axes in ({"depth": ["8", "56"]}, {"shortcut": ["none", "A"]}, {"shortcut": ["A", "B"], "depth": ["8", "56"]}):
        errors = {place: [0.1, 0.2] for place in product(*axes.values())}
        assert make_verdicts(study_runs(axes, errors), axes) == []


def test_the_rule_prints_its_margin():
    assert f"{100 * MARGIN:g} point" in RULE

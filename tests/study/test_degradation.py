from math import sqrt

import pytest

from resnetlab.study.degradation import MARGIN, RULE, make_cells, make_pairs, make_verdicts
from tests.made import study_run


def runs(errors: dict[tuple[str, int], list[float | None]]):
    """Runs from training errors by (kind, depth), a seed a value; None is a run that diverged."""
    return [
        study_run(kind, depth, seed, error)
        for (kind, depth), values in errors.items()
        for seed, error in enumerate(values)
    ]


GRID = {
    ("plain", 8): [0.00, 0.01, 0.02],
    ("plain", 56): [0.60, 0.70, 0.65],
    ("residual", 8): [0.00, 0.01, 0.02],
    ("residual", 56): [0.000, 0.001, 0.002],
}


def test_cells_hold_mean_and_spread_in_order_of_kind_and_depth():
    cells = make_cells(runs(GRID))
    assert [(cell.kind, cell.depth) for cell in cells] == list(GRID)
    assert cells[1].train_error.mean == pytest.approx(0.65)
    assert cells[1].train_error.sd == pytest.approx(0.05)
    assert cells[1].train_error.n == 3


def test_pairs_are_plain_minus_residual_by_seed():
    deep = make_pairs(runs(GRID))[1]
    assert deep.depth == 56
    assert deep.train_error.mean == pytest.approx(0.649)
    assert deep.train_error.excludes_zero
    assert not make_pairs(runs(GRID))[0].train_error.excludes_zero


def test_bounds_of_a_pair_are_those_of_students_t_by_hand():
    """Differences 0.1, 0.2, 0.6: mean 0.3, s² = (0.04 + 0.01 + 0.09)/2, and t_2 = p √(2/(1 - p²)) for the level p."""
    made = {("plain", 8): [0.3, 0.5, 1.0], ("residual", 8): [0.2, 0.3, 0.4]}
    (pair,) = make_pairs(runs(made))
    reach = 0.95 * sqrt(2 / (1 - 0.95**2)) * sqrt(0.07 / 3)
    found = pair.train_error
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach), abs=1e-10)
    (cell, _) = make_cells(runs(made))
    assert (cell.train_error.mean, cell.train_error.sd) == pytest.approx((0.6, sqrt(0.13)), abs=1e-10)


def test_bounds_of_a_verdict_are_widened_for_three_comparisons_by_hand():
    """One-sided 95 % bounds over three pairs of depths: the two-sided level 1 - 2 · 0.05 / 3, in the closed form."""
    made = {("plain", 8): [0.2, 0.3, 0.4], ("plain", 20): [0.3, 0.5, 1.0], ("plain", 56): [0.3, 0.5, 1.0]}
    (verdict,) = make_verdicts(runs(made))
    level = 1 - 0.1 / 3
    reach = level * sqrt(2 / (1 - level**2)) * sqrt(0.07 / 3)
    step = next(step for step in verdict.steps if (step.shallow, step.deep) == (8, 20))
    found = step.train_error
    assert (found.mean, found.low, found.high) == pytest.approx((0.3, 0.3 - reach, 0.3 + reach), abs=1e-10)


def test_pairs_need_both_kinds_and_both_runs():
    assert make_pairs(runs({("plain", 8): [0.1], ("residual", 20): [0.1]})) == []
    (pair,) = make_pairs(runs({("plain", 8): [0.5, None, 0.7], ("residual", 8): [0.1, 0.2, 0.3]}))
    assert pair.train_error.n == 2
    assert pair.train_error.mean == pytest.approx(0.4)


def test_verdict_plain_grows_and_residual_does_not():
    plain, residual = make_verdicts(runs(GRID))
    assert (plain.kind, plain.answer) == ("plain", "grows")
    assert plain.reason.startswith("depth 56 minus depth 8 is +64.00 points [")
    assert (residual.kind, residual.answer) == ("residual", "does not grow")


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
    (verdict,) = make_verdicts(runs(errors))
    assert verdict.answer == "undecided"
    assert reason in verdict.reason


def test_verdict_sees_growth_against_any_shallower_depth():
    """Depth 20 is the best one; the deepest is no worse than depth 8, and is still degraded."""
    (verdict,) = make_verdicts(
        runs({("plain", 8): [0.30, 0.31, 0.32], ("plain", 20): [0.01, 0.02, 0.01], ("plain", 56): [0.30, 0.31, 0.31]})
    )
    assert verdict.answer == "grows"
    assert "minus depth 20" in verdict.reason


def test_verdict_sees_a_degraded_depth_in_the_middle():
    (verdict,) = make_verdicts(
        runs({("plain", 8): [0.0, 0.01, 0.0], ("plain", 20): [0.60, 0.61, 0.62], ("plain", 56): [0.0, 0.0, 0.01]})
    )
    assert verdict.answer == "grows"
    assert "depth 20 minus depth 8" in verdict.reason


def test_one_image_more_is_no_growth_though_every_seed_has_it():
    (verdict,) = make_verdicts(runs({("plain", 8): [0.0] * 3, ("plain", 56): [1 / 1437] * 3}))
    assert verdict.answer == "does not grow"


def test_verdict_bounds_widen_with_the_number_of_comparisons():
    few, more = (
        next(step.train_error for step in make_verdicts(runs(grid))[0].steps if (step.shallow, step.deep) == (8, 56))
        for grid in (GRID, GRID | {("plain", 20): [0.0, 0.01, 0.02]})
    )
    assert few.level == pytest.approx(0.90)
    assert more.level == pytest.approx(1 - 0.1 / 3)
    assert more.high - more.low > few.high - few.low


def test_diverged_runs_are_counted_and_left_out():
    cell = make_cells(runs({("plain", 8): [0.5, None]}))[0]
    assert (cell.diverged, cell.train_error.n) == (1, 1)
    assert make_cells(runs({("plain", 8): [None]}))[0].train_error is None


def test_the_rule_prints_its_margin():
    assert f"{100 * MARGIN:g} point" in RULE

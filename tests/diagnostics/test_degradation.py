import pytest

from resnetlab.diagnostics.degradation import MARGIN, RULE, make_cells, make_pairs, make_verdicts
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


def test_one_picture_more_is_no_growth_though_every_seed_has_it():
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

from itertools import product
from math import sqrt

import pytest

from resnetlab.core.stats import holm
from resnetlab.study.degradation import MARGIN, RULE, make_verdicts
from resnetlab.study.statistics import make_contrasts
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
    assert plain.reason.endswith("worse by more than 1 point in 3 of 3 seeds")
    assert (residual.values, residual.answer) == ({"shortcut": "default"}, "does not grow")


def test_verdict_and_contrast_of_the_same_numbers_have_the_same_p():
    """One rule: the paired t-test by Holm's, here of one comparison, on the differences of depths and of kinds."""
    errors = {("none", "8"): [0.0, 0.01, 0.02], ("none", "56"): [0.60, 0.70, 0.65]}
    axes = {"shortcut": ["none"], "depth": ["8", "56"]}
    (verdict,) = make_verdicts(study_runs(axes, errors), axes)
    twin = {("a",): errors["none", "8"], ("b",): errors["none", "56"]}
    (contrast,) = make_contrasts(study_runs(["x"], twin), {"x": ["a", "b"]})
    (step,) = verdict.steps
    assert step.difference.adjusted == contrast.train_error.adjusted
    assert step.difference.student == contrast.train_error.student


def test_p_of_a_verdict_is_holms_over_its_comparisons():
    """A p of 0.0219 in each of two comparisons, as of three seeds at 49, 76 and 84 %, is 0.066 by Holm's rule."""
    made = {("plain", 8): [0.0] * 3, ("plain", 20): [0.0] * 3, ("plain", 56): [0.4941, 0.7571, 0.8434]}
    (verdict,) = verdicts(made)
    differences = [step.difference for step in verdict.steps]
    assert [one.p for one in differences] == pytest.approx([1.0, 0.0219, 0.0219], abs=1e-4)
    assert [one.adjusted for one in differences] == holm([one.p for one in differences])
    assert max(one.adjusted for one in differences[1:]) == pytest.approx(0.066, abs=1e-3)
    assert verdict.answer == "undecided"
    assert "p 0.066 by Holm's rule" in verdict.reason


def test_spread_of_zero_is_no_certainty():
    (verdict,) = verdicts({("plain", 8): [0.1] * 3, ("plain", 56): [0.12] * 3})
    assert verdict.answer == "undecided"
    assert verdict.reason.startswith("depth 56 minus depth 8 is +2.00 points in every seed, sign test p 0.250")
    assert "[" not in verdict.reason


def test_where_every_seed_differs_by_the_same_the_exact_test_decides():
    """Six of six have p = 2/64, five of five 2/32."""
    for seeds, answer in ((5, "undecided"), (6, "grows")):
        (verdict,) = verdicts({("plain", 8): [0.1] * seeds, ("plain", 56): [0.12] * seeds})
        assert verdict.answer == answer


@pytest.mark.parametrize(("seeds", "told"), [(3, "63 %"), (5, "45 %"), (20, "14 %")])
def test_no_growth_says_what_share_of_runs_may_be_worse(seeds, told):
    (verdict,) = verdicts({("residual", 8): [0.0] * seeds, ("residual", 56): [0.0] * seeds})
    assert verdict.answer == "does not grow"
    assert f"in 0 of {seeds} seeds; up to {told} of runs may be worse" in verdict.reason


def test_two_seeds_decide_nothing():
    for deep in ([0.0, 0.0], [0.9, 0.9], [0.9, 0.9001]):
        (verdict,) = verdicts({("plain", 8): [0.0, 0.0], ("plain", 56): deep})
        assert verdict.answer == "undecided"


def test_nets_at_chance_are_untrained():
    """Ten classes of equal size: 90 % is guessing, and 81 % a tenth of the way to no error."""
    (verdict,) = verdicts({("plain", 110): [0.90, 0.899, 0.90], ("plain", 1202): [0.90, 0.90, 0.90]})
    assert verdict.answer == "untrained"
    assert verdict.reason.endswith("hardly better than guessing, n = 3")
    (partly,) = verdicts({("plain", 56): [0.80, 0.80, 0.79], ("plain", 110): [0.80] * 3})
    assert partly.answer == "undecided"
    deep = {("plain", 20): [0.95, 0.95, 0.95], ("plain", 110): [0.90, 0.90, 0.90], ("plain", 1202): [0.90, 0.89, 0.90]}
    assert verdicts({("plain", 8): [0.0, 0.01, 0.02]} | deep)[0].answer == "grows"


def test_depths_of_which_two_are_untrained_say_nothing_of_growth():
    better = {("plain", 8): [0.9] * 3, ("plain", 20): [0.9] * 3, ("plain", 56): [0.0, 0.001, 0.0]}
    (verdict,) = verdicts(better)
    assert (verdict.answer, verdict.reason) == ("undecided", "the nets of depth 8 and 20 are untrained")


BIMODAL = {("plain", 8): [0.0, 0.001, 0.002] * 3, ("plain", 56): [0.6] * 4 + [0.7] * 4 + [0.001]}


def test_runs_that_train_or_do_not_are_judged_by_the_exact_test_too():
    """Four of five seeds are worse: the t-test takes two kinds of runs for one. Eight of nine have p = 2/256."""
    few = {place: errors[4:] for place, errors in BIMODAL.items()}
    (verdict,) = verdicts(few)
    (step,) = verdict.steps
    assert step.difference.bimodal
    assert step.difference.adjusted < 0.05 < step.difference.counts.adjusted
    assert (verdict.answer, step.difference.counts.more, step.difference.counts.n) == ("undecided", 4, 5)
    (verdict,) = verdicts(BIMODAL)
    (step,) = verdict.steps
    assert step.difference.counts.p == pytest.approx(2 / 2**8)
    assert verdict.answer == "grows"


def test_deeper_net_that_failed_once_is_no_net_that_does_not_grow():
    """Of twenty seeds one did not train: the mean may be as good, and the shallow nets worse on the whole."""
    shallow = [0.0] * 15 + [0.9] * 5
    (verdict,) = verdicts({("residual", 8): shallow, ("residual", 56): [0.9] + [0.0] * 19})
    assert verdict.steps[0].train_error.high < MARGIN
    assert verdict.answer == "undecided"


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ({("plain", 8): [0.0], ("plain", 56): [0.9]}, "one seed"),
        ({("plain", 8): [0.0, 0.1]}, "one depth"),
        ({("plain", 8): [0.0, 0.0], ("plain", 56): [0.1, 0.1]}, "2 seeds say too little"),
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
    found = make_verdicts(study_runs(axes, {place: [end, 1.01 * end, 0.99 * end] for place, end in ends.items()}), axes)
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

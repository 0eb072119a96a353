"""Which measure foretells failure: against scikit-learn, by hand, and on noise."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.gradients import GradientMoment
from resnetlab.records.prediction import PredictionRecord
from resnetlab.report.study.prediction import depth_table, predictor_table
from resnetlab.study.prediction import (
    MEASURES,
    Case,
    auc,
    best_threshold,
    depth_of,
    hold_out,
    interval,
    judge,
    predict_failure,
)
from resnetlab.study.results import make_record, study_run
from tests.made import run_record


def cases(values, failed, conditions=None, depths=None) -> list[Case]:
    places, deep = conditions or range(len(values)), depths or [None] * len(values)
    return [
        Case(failed=bool(bad), condition=place, depth=depth, value=float(value))
        for value, bad, place, depth in zip(values, failed, places, deep, strict=True)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_auc_is_that_of_scikit_learn_with_ties(seed):
    draw = np.random.default_rng(seed)
    values, failed = draw.integers(0, 6, 40), draw.integers(0, 2, 40)
    assert auc(cases(values, failed)) == pytest.approx(roc_auc_score(failed, values), abs=1e-12)


def test_auc_by_hand():
    """Failed 3 and 1, trained 1 and 0: of four pairs three are won and one is even."""
    assert auc(cases([3, 1, 1, 0], [1, 1, 0, 0])) == 3.5 / 4
    assert auc(cases([1, 2], [1, 1])) is None


def test_interval_is_the_bootstrap_over_conditions():
    """Two conditions of many equal seeds: a resample has both, or one alone, which has outcomes of one kind."""
    split = cases([1.0] * 5 + [0.0] * 5, [1] * 5 + [0] * 5, conditions=[0] * 5 + [1] * 5)
    assert auc(split) == 1.0
    assert interval(split) == (None, None)
    draw = np.random.default_rng(0)
    failed = draw.integers(0, 2, 30)
    values = failed + draw.normal(size=30)
    plain = cases(values, failed)
    low, high = interval(plain)
    # Against resamples that are drawn one by one.
    found = []
    for _ in range(2000):
        chosen = [plain[n] for n in draw.integers(0, 30, 30)]
        found.append(auc(chosen))
    known = [one for one in found if one is not None]
    assert low == pytest.approx(np.quantile(known, 0.025), abs=0.03)
    assert high == pytest.approx(np.quantile(known, 0.975), abs=0.03)
    assert low < auc(plain) < high


def test_seeds_of_one_condition_are_no_separate_evidence():
    """The same values once more under the same conditions leave the interval as it is; as new conditions narrow it."""
    draw = np.random.default_rng(1)
    failed = draw.integers(0, 2, 12)
    values = failed + draw.normal(size=12)
    once = interval(cases(values, failed))
    twice = cases([*values, *values], [*failed, *failed], conditions=[*range(12), *range(12)])
    assert interval(twice) == pytest.approx(once)
    apart = interval(cases([*values, *values], [*failed, *failed]))
    assert apart[1] - apart[0] < once[1] - once[0]


@pytest.mark.parametrize("seed", range(3))
def test_noise_has_an_interval_that_covers_a_half(seed):
    draw = np.random.default_rng(100 + seed)
    found = judge("noise", cases(draw.normal(size=60), draw.integers(0, 2, 60), depths=[20, 56, 110] * 20))
    assert found.low < 0.5 < found.high
    assert abs(found.balanced - 0.5) < 0.25


def test_threshold_is_the_middle_of_the_best_gap():
    """Trained 0, 1 and 2, failed 3 and 1.5: above 2.5 a half is foretold and none wrongly, above 1.25 both and one."""
    given = cases([0, 1, 2, 3, 1.5], [0, 0, 0, 1, 1])
    assert best_threshold(given, True) == 1.25
    turned = [replace(case, value=-case.value) for case in given]
    assert best_threshold(turned, False) == -1.25
    assert best_threshold(cases([2, 2], [0, 1]), True) == 2


def test_depth_left_out_is_judged_by_the_others():
    """Depths 20 and 56 say: above 3.5. At 110 a run of 5 fails as foretold, one of 4 does not, one of 1 fails."""
    given = cases(
        [1, 2, 5, 6, 1, 2, 5, 6, 5, 4, 1],
        [0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1],
        depths=[20] * 4 + [56] * 4 + [110] * 3,
    )
    last = hold_out(given)[-1]
    assert (last.depth, last.n, last.failed, last.higher, last.threshold) == (110, 3, 2, True, 3.5)
    assert (last.caught, last.spared, last.auc) == (1, 0, 0.5)


def test_direction_is_chosen_on_the_other_depths_too():
    """Low values mean failure at 20 and high ones at 56: each is judged the wrong way round, and no AUC hides that."""
    given = cases([1, 2, 1, 2], [1, 0, 0, 1], depths=[20, 20, 56, 56])
    first, second = hold_out(given)
    assert (first.higher, first.auc, first.caught) == (True, 0.0, 0)
    assert (second.higher, second.auc, second.caught) == (False, 0.0, 0)
    assert judge("m", given).balanced == 0.0
    assert judge("m", given).auc == 0.5


def test_depth_without_a_rule_from_the_others_is_not_judged():
    given = cases([1, 2, 3, 4], [0, 0, 0, 1], depths=[20, 20, 56, 56])
    shallow, deep = hold_out(given)
    assert (shallow.higher, shallow.threshold, shallow.caught, shallow.spared) == (True, 3.5, 0, 2)
    assert (deep.higher, deep.threshold, deep.auc) == (None, None, None)
    assert hold_out(cases([1, 2], [0, 1], depths=[20, 20])) == []


def study(model: str = "cifar_plain20", shift: float = 0.0):
    """Depths 20 and 56, of which the runs with a growth above 2 do not train; one run was not traced."""
    runs = []
    for depth in ("20", "56"):
        for seed, growth in enumerate((1.0, 1.5, 3.0, 4.0)):
            record = run_record(0.9 if growth > 2 else 0.01, model=model)
            start = GradientMoment(step=0, first=1.0, last=1.0, growth=growth + shift, rank=5.0)
            trace = [] if (depth, seed) == ("56", 0) else [start]
            runs.append(study_run({"depth": depth}, seed, replace(record, gradient_trace=trace)))
    return make_record(runs, {"depth": ["20", "56"]}, len(runs), {}, f"resnetlab study {model}")


def test_studies_go_together_each_by_its_own_rule_and_conditions():
    found = predict_failure([study(), study("mlp_resnet8")])
    assert (found.runs, found.failed, found.conditions) == (16, 8, 4)
    assert found.studies == ["resnetlab study cifar_plain20", "resnetlab study mlp_resnet8"]
    growth = found.predictors[0]
    assert (growth.n, growth.failed, growth.missing, growth.auc, growth.balanced) == (14, 8, 2, 1.0, 1.0)
    rank = found.predictors[-1]
    assert (rank.auc, rank.low, rank.high) == (0.5, None, None)
    assert [one.measure for one in found.predictors] == list(MEASURES)
    assert (found.predictors[1].n, found.predictors[1].auc, found.predictors[1].depths) == (0, None, [])
    assert from_plain(PredictionRecord, as_plain(found), "it") == found


@pytest.mark.parametrize(
    ("values", "model", "depth"),
    [
        ({"depth": "110"}, "cifar_plain20", 110),
        ({}, "cifar_preact_resnet164", 164),
        ({}, "wide_resnet28_10", 28),
        ({}, "own", None),
    ],
)
def test_depth_is_that_of_the_axis_or_of_the_name(values, model, depth):
    assert depth_of(values, run_record(0.1, model=model)) == depth


def test_tables_say_what_was_found():
    found = predict_failure([study()])
    rows = predictor_table(found).rows
    assert rows[0] == ("growth of gradients at the start", "7", "4", "1", "1.000", "1.000")
    assert rows[1][-2:] == ("–", "–")
    deep = [row for row in depth_table(found).rows if row[:2] == (rows[0][0], "56")]
    assert deep == [(rows[0][0], "56", "3", "2", "above 2.25", "2 of 2", "1 of 1", "1.000")]

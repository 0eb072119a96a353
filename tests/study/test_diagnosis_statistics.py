from dataclasses import replace
from statistics import median

import pytest
from scipy.stats import ttest_rel

from resnetlab.core.stats import holm
from resnetlab.study import diagnosis_statistics as seedwise
from tests.made import lesion_result, run_result

AXES = {"kind": ["plain", "residual"], "depth": ["20", "56"]}
PLAIN, RESIDUAL = [0.7, 0.6, 0.8], [0.02, 0.01, 0.05]


def runs(depths=("20",)):
    return [
        run_result({"kind": kind, "depth": depth}, seed, cost, cost, 3 * cost if kind == "residual" else cost)
        for depth in depths
        for kind, costs in (("plain", PLAIN), ("residual", RESIDUAL))
        for seed, cost in enumerate(costs)
    ]


def measure(name):
    return next(measure for measure in seedwise.MEASURES if measure.name == name)


def test_worth_of_a_block_is_the_median_and_the_largest_rise():
    plain, residual = seedwise.combine(runs(), [measure("typical"), measure("worst")])
    assert plain.measures["typical"].mean == pytest.approx(0.7, abs=1e-12)
    assert residual.measures["typical"].mean == pytest.approx(0.08 / 3, abs=1e-12)
    assert residual.measures["worst"].mean == pytest.approx(3 * 0.08 / 3, abs=1e-12)
    assert residual.measures["worst"].n == residual.n == 3
    assert (plain.verdicts["lesion"], residual.verdicts["lesion"]) == ({"fragile": 3}, {"robust": 3})


def test_difference_is_residual_minus_plain_with_the_p_of_scipy():
    (found,) = seedwise.contrast(runs(), AXES, ["kind"], [measure("typical")])
    difference = found.differences["typical"]
    assert (found.axis, found.first, found.value, found.others) == ("kind", "plain", "residual", {"depth": "20"})
    assert difference.student.mean == pytest.approx(0.08 / 3 - 0.7, abs=1e-12)
    assert difference.p == pytest.approx(ttest_rel(RESIDUAL, PLAIN).pvalue, rel=1e-9)
    assert difference.adjusted == difference.p


def test_p_is_adjusted_over_all_comparisons_of_one_measure():
    found = seedwise.contrast(
        runs(["20", "56"]), AXES, ["kind", "depth"], [measure("typical"), measure("growth_start")]
    )
    ps = [one.differences["typical"].p for one in found]
    assert [one.axis for one in found] == ["kind", "kind", "depth", "depth"]
    assert [one.differences["typical"].adjusted for one in found] == holm(ps)
    # The other measure, in which all seeds agree, has no part in it.
    assert {one.differences["growth_start"].p for one in found} == {1.0}


def test_net_that_is_untrained_has_no_worth_of_blocks_but_an_error():
    lost = runs()[0]
    lost = replace(lost, net=replace(lost.net, lesion=lesion_result(0.9, intact=0.88)))
    plain, _ = seedwise.combine([lost, *runs()[1:]], [measure("typical"), measure("intact")])
    assert (plain.measures["typical"].n, plain.measures["intact"].n) == (2, 3)
    assert plain.verdicts["lesion"] == {"untrained": 1, "fragile": 2}
    (found,) = seedwise.contrast([lost, *runs()[1:]], AXES, ["kind"], [measure("typical")])
    assert found.differences["typical"].student.n == 2


def test_measure_that_no_run_has_is_none():
    bare = [replace(run, net=replace(run.net, lesion=None, blocks=[], flow=None)) for run in runs()]
    measures = seedwise.measures_of(["gradients", "residuals", "lesion"])
    plain, _ = seedwise.combine(bare, measures)
    assert [name for name, values in plain.measures.items() if values] == ["growth_start"]
    (found,) = seedwise.contrast(bare, AXES, ["kind"], measures)
    assert [name for name, difference in found.differences.items() if difference] == ["growth_start"]


def test_measures_of_the_blocks_are_those_of_the_residual_part():
    plain, residual = seedwise.combine(runs(), seedwise.measures_of(["residuals"]))
    assert (plain.measures["response"].mean, residual.measures["response"].mean) == (2.0, 1.5)
    assert residual.measures["ratio"].mean == median([0.5, 0.5, 0.5])

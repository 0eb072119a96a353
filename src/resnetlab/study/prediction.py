"""Which measure of a run, taken at its start or soon after, foretells that it does not train? From records alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from resnetlab.core.randomness import generator
from resnetlab.core.stats import RESAMPLES
from resnetlab.records.gradients import GradientMoment
from resnetlab.records.prediction import RULE, HeldOutDepth, PredictionRecord, Predictor
from resnetlab.records.run import RunRecord
from resnetlab.records.study import StudyRecord
from resnetlab.study.outcomes import Outcomes

LEVEL = 0.95
SOON = 16
"""Steps after which growth and correlation are taken again."""


def _at(step: int, value: Callable[[GradientMoment], float | None]) -> Callable[[RunRecord], float | None]:
    return lambda record: next((value(one) for one in record.gradient_trace if one.step == step), None)


MEASURES: dict[str, Callable[[RunRecord], float | None]] = {
    "growth of gradients at the start": _at(0, lambda one: one.growth),
    f"growth of gradients at step {SOON}": _at(SOON, lambda one: one.growth),
    "correlation of neighbours' gradients at the start": _at(0, lambda one: one.correlation),
    f"correlation of neighbours' gradients at step {SOON}": _at(SOON, lambda one: one.correlation),
    "agreement of half batches at the start": _at(0, lambda one: one.agreement),
    "change of all weights by the first step": _at(1, lambda one: one.change),
    "largest change of a block by the first step": _at(1, lambda one: one.largest_change),
    "rank of the features at the start": _at(0, lambda one: one.rank),
}
"""What may foretell failure, each from the record of a run; None where the run did not measure it."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run: whether it failed, its condition (a number over all studies), its depth, and one value of a measure."""

    failed: bool
    condition: int
    depth: int | None
    value: float


def predict_failure(studies: Sequence[StudyRecord]) -> PredictionRecord:
    """How well each of ``MEASURES`` foretells that a run does not train, over all runs of the studies, by ``RULE``."""
    conditions: dict[tuple[int, tuple[tuple[str, str], ...]], int] = {}
    ended: list[tuple[RunRecord, bool, int, int | None]] = []
    for number, study in enumerate(studies):
        outcomes = Outcomes(study.runs)
        for run in study.runs:
            place = conditions.setdefault((number, tuple(sorted(run.values.items()))), len(conditions))
            failed = not outcomes.trained(run.values)[run.seed]
            ended.append((run.record, failed, place, depth_of(run.values, run.record)))
    predictors = []
    for name, measure in MEASURES.items():
        cases = [
            Case(failed=failed, condition=place, depth=depth, value=value)
            for record, failed, place, depth in ended
            if (value := measure(record)) is not None and isfinite(value)
        ]
        predictors.append(judge(name, cases, missing=len(ended) - len(cases)))
    return PredictionRecord(
        studies=[study.command for study in studies],
        runs=len(ended),
        failed=sum(failed for _, failed, _, _ in ended),
        conditions=len(conditions),
        predictors=predictors,
        rule=RULE,
    )


def depth_of(values: dict[str, str], record: RunRecord) -> int | None:
    """The depth of a run: its value on that axis, or the number in the model's name; None without either."""
    text = values.get("depth", record.model)
    found = re.search(r"\d+", re.sub(r"^cifar\d+", "", text))
    return int(found.group()) if found else None


def judge(measure: str, cases: Sequence[Case], missing: int = 0) -> Predictor:
    """One measure by ``RULE``."""
    depths = hold_out(cases)
    low, high = interval(cases)
    return Predictor(
        measure=measure,
        n=len(cases),
        failed=sum(case.failed for case in cases),
        missing=missing,
        auc=auc(cases),
        low=low,
        high=high,
        balanced=balanced_accuracy(depths),
        depths=depths,
    )


def auc(cases: Sequence[Case]) -> float | None:
    """The area under the ROC curve, high values foretelling failure; None where all ended in one way.

    AUC = (Σ over pairs [failed > trained] + ½ [failed = trained]) / (n₁ n₀), Mann and Whitney's U over the pairs.
    """
    bad, good = _sides(cases)
    return None if not len(bad) or not len(good) else float(_wins(bad, good).mean())


def interval(cases: Sequence[Case]) -> tuple[float | None, float | None]:
    """The percentile bootstrap's interval of the AUC over conditions; the resamples are a function of their number.

    Resamples in which all runs ended in one way have no AUC and are left out. None where all others agree, or none is.
    """
    if auc(cases) is None:
        return None, None
    places = sorted({case.condition for case in cases})
    index = {place: number for number, place in enumerate(places)}
    bad = np.array([index[case.condition] for case in cases if case.failed])
    good = np.array([index[case.condition] for case in cases if not case.failed])
    # U of every pair of conditions: a resample then is a vector of how often each was drawn.
    pairs = np.zeros((len(places), len(places)))
    np.add.at(pairs, (bad[:, None], good[None, :]), _wins(*_sides(cases)))
    failed, trained = np.bincount(bad, minlength=len(places)), np.bincount(good, minlength=len(places))
    draws = generator(0, "prediction", len(places)).multinomial(
        len(places), np.full(len(places), 1 / len(places)), size=RESAMPLES
    )
    total = (draws @ failed) * (draws @ trained)
    wins = np.einsum("rc,cd,rd->r", draws, pairs, draws, optimize=True)
    found = wins[total > 0] / total[total > 0]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(found) else (0.0, 0.0)
    return (None, None) if low == high else (float(low), float(high))


def hold_out(cases: Sequence[Case]) -> list[HeldOutDepth]:
    """Each depth judged by the direction and the threshold of the others; empty where there are fewer than two."""
    depths = sorted({case.depth for case in cases if case.depth is not None})
    return [
        _held_out(depth, [c for c in cases if c.depth == depth], [c for c in cases if c.depth not in (depth, None)])
        for depth in (depths if len(depths) > 1 else ())
    ]


def _held_out(depth: int, ours: Sequence[Case], others: Sequence[Case]) -> HeldOutDepth:
    failed = sum(case.failed for case in ours)
    area = auc(others)
    if area is None:
        return HeldOutDepth(depth=depth, n=len(ours), failed=failed)
    higher = area >= 0.5
    limit = best_threshold(others, higher)
    foretold = [(case.value > limit) == higher and case.value != limit for case in ours]
    own = auc(ours)
    return HeldOutDepth(
        depth=depth,
        n=len(ours),
        failed=failed,
        higher=higher,
        threshold=limit,
        caught=sum(case.failed and said for case, said in zip(ours, foretold, strict=True)),
        spared=sum(not case.failed and not said for case, said in zip(ours, foretold, strict=True)),
        auc=own if own is None or higher else 1 - own,
    )


def best_threshold(cases: Sequence[Case], higher: bool) -> float:
    """The value between two neighbouring ones that gives the best balanced accuracy; of several the lowest.

    Of a single value it is that value. ``higher`` says that values above it foretell failure.
    """
    values = np.unique([case.value for case in cases])
    if len(values) == 1:
        return float(values[0])
    limits = (values[1:] + values[:-1]) / 2
    bad, good = _sides(cases)
    above, below = (bad[None] > limits[:, None]).mean(axis=1), (good[None] < limits[:, None]).mean(axis=1)
    balanced = (above + below) / 2
    return float(limits[int(np.argmax(balanced if higher else 1 - balanced))])


def balanced_accuracy(depths: Sequence[HeldOutDepth]) -> float | None:
    """(share of failures foretold + share of others spared) / 2 over the depths that could be judged together."""
    judged = [one for one in depths if one.higher is not None]
    failed, trained = sum(one.failed for one in judged), sum(one.n - one.failed for one in judged)
    if not failed or not trained:
        return None
    return (sum(one.caught for one in judged) / failed + sum(one.spared for one in judged) / trained) / 2


def _sides(cases: Sequence[Case]) -> "tuple[np.ndarray, np.ndarray]":
    bad = np.array([case.value for case in cases if case.failed])
    return bad, np.array([case.value for case in cases if not case.failed])


def _wins(bad: "np.ndarray", good: "np.ndarray") -> "np.ndarray":
    """1 where the failed run has the higher value, ½ where both are equal, ``(failed, trained)``."""
    found: np.ndarray = (bad[:, None] > good[None]) + 0.5 * (bad[:, None] == good[None])
    return found

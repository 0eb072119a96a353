"""Degradation: does training error grow with depth? The verdict, from the runs of a paired study.

Deeper nets should do better, since the added layers could be the identity; plain ones do worse, in *training* error
(He et al. 2015, §1 and §4.1). Everything here is computed from records; nothing of torch is loaded.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

from resnetlab.core.stats import paired_interval
from resnetlab.records.study import DepthStep, StudyRun, Verdict
from resnetlab.study.statistics import Values, asks_about_degradation, by_seed, train_error

LEVEL = 0.95
MARGIN = 0.01

RULE = (
    "For each kind, every net is compared with every shallower one: training error after the last epoch, paired by "
    f"seed. Both bounds of a difference are one-sided {LEVEL:.0%} bounds (Student's t), widened by Bonferroni's rule "
    "for the number of comparisons. Training error grows with depth if a lower bound is above 0 and that difference "
    f"above {100 * MARGIN:g} point; it does not grow if every upper bound is at most {100 * MARGIN:g} point and no run "
    "diverged; else the study leaves it undecided. Bounds of few seeds are not clipped to what errors can be."
)


def make_verdicts(runs: Sequence[StudyRun], axes: Mapping[str, Sequence[str]]) -> list[Verdict]:
    """The answer by ``RULE`` for every setting of the axes beside depth; none where the study does not ask."""
    if not asks_about_degradation(axes):
        return []
    groups: dict[tuple[str, ...], list[StudyRun]] = {}
    for run in runs:
        groups.setdefault(tuple(_beside_depth(run).values()), []).append(run)
    return [_verdict(group) for group in groups.values()]


def _verdict(runs: Sequence[StudyRun]) -> Verdict:
    values = _beside_depth(runs[0])
    steps = _compare_depths(runs)
    grown = [
        s for s in steps if s.train_error.low is not None and s.train_error.low > 0 and s.train_error.mean > MARGIN
    ]
    if grown:
        most = max(grown, key=lambda step: step.train_error.mean)
        return Verdict(values=values, answer="grows", reason=_describe(most), steps=steps)
    doubt = _doubt(runs, steps)
    if doubt:
        return Verdict(values=values, answer="undecided", reason=doubt, steps=steps)
    largest = max(steps, key=lambda step: step.train_error.high or 0.0)
    flat = all(step.train_error.high is not None and step.train_error.high <= MARGIN for step in steps)
    answer: Literal["does not grow", "undecided"] = "does not grow" if flat else "undecided"
    return Verdict(values=values, answer=answer, reason=_describe(largest), steps=steps)


def _compare_depths(runs: Sequence[StudyRun]) -> list[DepthStep]:
    """Each depth with every shallower one, where a seed has finished both; the bounds hold for all of them together."""
    pairs = list(combinations(_depths(runs), 2))
    # A two-sided interval of this level has one-sided bounds of LEVEL, over all comparisons together.
    level = 1 - 2 * (1 - LEVEL) / max(1, len(pairs))
    beside = _beside_depth(runs[0])
    steps = []
    for shallow, deep in pairs:
        ours, theirs = (by_seed(runs, {**beside, "depth": str(depth)}, train_error) for depth in (deep, shallow))
        seeds = sorted(ours.keys() & theirs.keys())
        if seeds:
            found = paired_interval([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], level)
            steps.append(DepthStep(shallow=shallow, deep=deep, train_error=found))
    return steps


def _doubt(runs: Sequence[StudyRun], steps: Sequence[DepthStep]) -> str:
    """What keeps the runs from showing that training error does not grow; empty if nothing does."""
    diverged = sum(run.record.status == "diverged" for run in runs)
    if diverged:
        return f"{diverged} of {len(runs)} runs diverged"
    depths = len(_depths(runs))
    if depths == 1:
        return "the study has one depth only"
    if len(steps) < depths * (depths - 1) // 2:
        return "too few runs have ended"
    if any(step.train_error.high is None for step in steps):
        return "one seed says nothing of the variation between seeds"
    return ""


def _depths(runs: Sequence[StudyRun]) -> list[int]:
    return sorted({int(run.values["depth"]) for run in runs})


def _beside_depth(run: StudyRun) -> Values:
    return {axis: value for axis, value in run.values.items() if axis != "depth"}


def _describe(step: DepthStep) -> str:
    found = step.train_error
    bounds = "" if found.low is None or found.high is None else f" [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    return f"depth {step.deep} minus depth {step.shallow} is {100 * found.mean:+.2f} points{bounds}, n = {found.n}"

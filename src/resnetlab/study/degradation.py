"""Degradation: does training error grow with depth? The verdict, from the runs of a paired study.

Deeper nets should do better, since the added layers could be the identity; plain ones do worse, in *training* error
(He et al. 2015, §1 and §4.1). Everything here is computed from records; nothing of torch is loaded.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

from resnetlab.core.stats import largest_share, paired_interval
from resnetlab.records.study import LEAST_SEEDS, DepthStep, StudyRun, Verdict
from resnetlab.report.table import interval, p_value
from resnetlab.study.outcomes import Outcomes
from resnetlab.study.statistics import (
    SIGNIFICANT,
    Values,
    adjust,
    asks_about_degradation,
    by_seed,
    compare,
    train_error,
)

LEVEL = 0.95
MARGIN = 0.01
POINTS = f"{100 * MARGIN:g} point"

RULE = (
    "For each kind, every net is compared with every shallower one: training error after the last epoch, paired by "
    f"seed. Training error grows with depth if a difference is above {POINTS} and significant; Holm's rule takes all "
    f"comparisons of that kind together, and the exact test counts the seeds that are worse by more than {POINTS}. "
    f"It does not grow if with {LEAST_SEEDS} seeds or more no run diverged and every upper bound is at most {POINTS} "
    f"(one-sided {LEVEL:.0%}, Student's t, widened by Bonferroni's rule for the number of comparisons; where there is "
    "no interval, the difference itself, and where the comparison is bimodal, no seed may be worse). So many seeds "
    "leave a share of runs that may be worse all the same: its exact one-sided bound stands in the answer. Nets that "
    "are untrained at every depth show no growth because they show nothing: untrained. All else is undecided. "
    f"{SIGNIFICANT}"
)


def make_verdicts(runs: Sequence[StudyRun], axes: Mapping[str, Sequence[str]]) -> list[Verdict]:
    """The answer by ``RULE`` for every setting of the axes beside depth; none where the study does not ask."""
    if not asks_about_degradation(axes):
        return []
    outcomes = Outcomes(runs)
    groups: dict[tuple[str, ...], list[StudyRun]] = {}
    for run in runs:
        groups.setdefault(tuple(_beside_depth(run).values()), []).append(run)
    return [_verdict(group, outcomes) for group in groups.values()]


def _verdict(runs: Sequence[StudyRun], outcomes: Outcomes) -> Verdict:
    values = _beside_depth(runs[0])
    steps = _compare_depths(runs, outcomes)
    grown = [s for s in steps if s.difference and s.difference.significant and s.difference.student.mean > MARGIN]
    if grown:
        most = max(grown, key=lambda step: step.train_error.mean)
        return Verdict(values=values, answer="grows", reason=_describe(most), steps=steps)
    depths = [_at(runs, depth) for depth in _depths(runs)]
    if outcomes.are_untrained(*depths):
        reason = (
            f"the nets of every depth are hardly better than guessing, n = {min(_finished(runs, d) for d in depths)}"
        )
        return Verdict(values=values, answer="untrained", reason=reason, steps=steps)
    doubt = _doubt(runs, steps, outcomes)
    if doubt:
        return Verdict(values=values, answer="undecided", reason=doubt, steps=steps)
    worst = max(steps, key=_highest)
    if all(map(_is_flat, steps)):
        # A p above 0.05 is no sign that there is no difference, and is left out.
        reason = f"{_describe(worst, tested=False)}; {_may_be_worse(steps)}"
        return Verdict(values=values, answer="does not grow", reason=reason, steps=steps)
    return Verdict(values=values, answer="undecided", reason=_describe(worst), steps=steps)


def _compare_depths(runs: Sequence[StudyRun], outcomes: Outcomes) -> list[DepthStep]:
    """Each depth with every shallower one, where a seed has finished both; the bounds hold for all of them together."""
    pairs = list(combinations(_depths(runs), 2))
    # A two-sided interval of this level has one-sided bounds of LEVEL, over all comparisons together.
    level = 1 - 2 * (1 - LEVEL) / max(1, len(pairs))
    found = []
    for shallow, deep in pairs:
        places = [_at(runs, depth) for depth in (deep, shallow)]
        ours, theirs = (by_seed(runs, place, train_error) for place in places)
        seeds = sorted(ours.keys() & theirs.keys())
        if seeds:
            bounds = paired_interval([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds], level)
            difference = compare(ours, theirs, outcomes.is_mixed(*places), MARGIN)
            found.append((shallow, deep, bounds, difference))
    adjusted = adjust([difference for *_, difference in found])
    return [
        DepthStep(shallow=shallow, deep=deep, train_error=bounds, difference=difference)
        for (shallow, deep, bounds, _), difference in zip(found, adjusted, strict=True)
    ]


def _is_flat(step: DepthStep) -> bool:
    """Whether the deeper net is no worse by more than the margin, as far as its seeds tell."""
    difference = step.difference
    if difference is None or difference.counts is None or (difference.bimodal and difference.counts.more):
        return False
    return _highest(step) <= MARGIN


def _highest(step: DepthStep) -> float:
    """The upper bound of the difference; the difference itself where it is the same in every seed."""
    return step.train_error.mean if step.train_error.high is None else step.train_error.high


def _doubt(runs: Sequence[StudyRun], steps: Sequence[DepthStep], outcomes: Outcomes) -> str:
    """What keeps the runs from showing that training error does not grow; empty if nothing does."""
    diverged = sum(run.record.status == "diverged" for run in runs)
    if diverged:
        return f"{diverged} of {len(runs)} runs diverged"
    depths = _depths(runs)
    if len(depths) == 1:
        return "the study has one depth only"
    if len(steps) < len(depths) * (len(depths) - 1) // 2:
        return "too few runs have ended"
    seeds = min(step.train_error.n for step in steps)
    if seeds == 1:
        return "one seed says nothing of the variation between seeds"
    if seeds < LEAST_SEEDS:
        return f"{seeds} seeds say too little of the variation between seeds; train {LEAST_SEEDS} or more"
    for step in steps:
        if outcomes.are_untrained(*(_at(runs, depth) for depth in (step.shallow, step.deep))):
            return f"the nets of depth {step.shallow} and {step.deep} are untrained"
    return ""


def _depths(runs: Sequence[StudyRun]) -> list[int]:
    return sorted({int(run.values["depth"]) for run in runs})


def _beside_depth(run: StudyRun) -> Values:
    return {axis: value for axis, value in run.values.items() if axis != "depth"}


def _at(runs: Sequence[StudyRun], depth: int) -> Values:
    return {**runs[0].values, "depth": str(depth)}


def _finished(runs: Sequence[StudyRun], values: Values) -> int:
    return len(by_seed(runs, values, train_error))


def _may_be_worse(steps: Sequence[DepthStep]) -> str:
    """What share of runs the fewest seeds leave open to be worse by more than the margin."""
    counts = [step.difference.counts for step in steps if step.difference]
    bound = max(largest_share(count.more, count.n, LEVEL) for count in counts if count)
    return f"up to {100 * bound:.0f} % of runs may be worse ({100 * LEVEL:.0f} % bound)"


def _describe(step: DepthStep, tested: bool = True) -> str:
    """The difference with its interval, the seeds that are worse, and where it was tested p by Holm's rule."""
    found = step.difference
    assert found is not None
    assert found.counts is not None
    student, counts = found.student, found.counts
    text = f"depth {step.deep} minus depth {step.shallow} is {interval(student, 100, 2, ' points')}"
    tests = [f"p {p_value(found.adjusted)} by Holm's rule"] if found.adjusted is not None else []
    if (found.adjusted is None or found.bimodal) and counts.adjusted is not None:
        tests.append(f"sign test p {p_value(counts.adjusted)}")
    worse = f"worse by more than {POINTS} in {counts.more} of {counts.n} seeds"
    return ", ".join([text, *(tests if tested else []), worse])

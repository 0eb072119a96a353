"""Degradation: does training error grow with depth? Statistics over the runs of a paired study.

Deeper nets should do better, since the added layers could be the identity; plain ones do worse, in *training* error
(He et al. 2015, §1 and §4.1). Everything here is computed from records; nothing of torch is loaded.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

from resnetlab.core.stats import Interval, paired_interval
from resnetlab.records.study import Cell, Pair, Step, StudyRun, Verdict
from resnetlab.study.statistics import Quantity, sample_of, test_error, train_error, train_loss

LEVEL = 0.95
MARGIN = 0.01

RULE = (
    "For each kind, every net is compared with every shallower one: training error after the last epoch, paired by "
    f"seed. Both bounds of a difference are one-sided {LEVEL:.0%} bounds (Student's t), widened by Bonferroni's rule "
    "for the number of comparisons. Training error grows with depth if a lower bound is above 0 and that difference "
    f"above {100 * MARGIN:g} point; it does not grow if every upper bound is at most {100 * MARGIN:g} point and no run "
    "diverged; else the study leaves it undecided. Bounds of few seeds are not clipped to what errors can be."
)


def make_cells(runs: Sequence[StudyRun]) -> list[Cell]:
    """Mean and standard deviation of every kind at every depth, in the order of the runs' kinds and of depth."""
    cells = []
    for kind, depth in _places(runs):
        records = [run.record for run in runs if (run.kind, run.depth) == (kind, depth)]
        final = [record.final for record in records if record.final]
        cells.append(
            Cell(
                kind=kind,
                depth=depth,
                model=records[0].model,
                parameters=records[0].parameters,
                multiply_adds=records[0].multiply_adds,
                diverged=len(records) - len(final),
                train_loss=sample_of(train_loss, final),
                train_error=sample_of(train_error, final),
                test_error=sample_of(test_error, final),
            )
        )
    return cells


def make_pairs(runs: Sequence[StudyRun]) -> list[Pair]:
    """Plain minus residual at every depth, over the seeds for which both finished; none where there is no such seed."""

    def difference(depth: int, quantity: Quantity) -> Interval | None:
        return _paired(runs, ("plain", depth), ("residual", depth), quantity, LEVEL)

    pairs = []
    for depth in sorted({run.depth for run in runs}):
        loss, train, test = (difference(depth, quantity) for quantity in (train_loss, train_error, test_error))
        if loss and train and test:
            pairs.append(Pair(depth=depth, train_loss=loss, train_error=train, test_error=test))
    return pairs


def make_verdicts(runs: Sequence[StudyRun]) -> list[Verdict]:
    """The answer for each kind, by ``RULE``."""
    return [_verdict(kind, runs) for kind in dict.fromkeys(run.kind for run in runs)]


def _verdict(kind: str, runs: Sequence[StudyRun]) -> Verdict:
    steps = _compare_depths(kind, runs)
    grown = [
        s for s in steps if s.train_error.low is not None and s.train_error.low > 0 and s.train_error.mean > MARGIN
    ]
    if grown:
        most = max(grown, key=lambda step: step.train_error.mean)
        return Verdict(kind=kind, answer="grows", reason=_describe(most), steps=steps)
    doubt = _doubt(kind, runs, steps)
    if doubt:
        return Verdict(kind=kind, answer="undecided", reason=doubt, steps=steps)
    largest = max(steps, key=lambda step: step.train_error.high or 0.0)
    flat = all(step.train_error.high is not None and step.train_error.high <= MARGIN for step in steps)
    answer: Literal["does not grow", "undecided"] = "does not grow" if flat else "undecided"
    return Verdict(kind=kind, answer=answer, reason=_describe(largest), steps=steps)


def _compare_depths(kind: str, runs: Sequence[StudyRun]) -> list[Step]:
    """Each depth with every shallower one, where a seed has finished both; the bounds hold for all of them together."""
    pairs = list(combinations(sorted({run.depth for run in runs if run.kind == kind}), 2))
    # A two-sided interval of this level has one-sided bounds of LEVEL, over all comparisons together.
    level = 1 - 2 * (1 - LEVEL) / max(1, len(pairs))
    steps = []
    for shallow, deep in pairs:
        interval = _paired(runs, (kind, deep), (kind, shallow), train_error, level)
        if interval:
            steps.append(Step(shallow=shallow, deep=deep, train_error=interval))
    return steps


def _doubt(kind: str, runs: Sequence[StudyRun], steps: Sequence[Step]) -> str:
    """What keeps the runs from showing that training error does not grow; empty if nothing does."""
    ours = [run for run in runs if run.kind == kind]
    diverged = sum(run.record.status == "diverged" for run in ours)
    if diverged:
        return f"{diverged} of {len(ours)} runs diverged"
    depths = len({run.depth for run in ours})
    if depths == 1:
        return "the study has one depth only"
    if len(steps) < depths * (depths - 1) // 2:
        return "too few runs have ended"
    if any(step.train_error.high is None for step in steps):
        return "one seed tells nothing of the spread"
    return ""


def _paired(
    runs: Sequence[StudyRun], first: tuple[str, int], second: tuple[str, int], quantity: Quantity, level: float
) -> Interval | None:
    ours, theirs = _by_seed(runs, first, quantity), _by_seed(runs, second, quantity)
    seeds = sorted(ours.keys() & theirs.keys())
    return paired_interval([ours[s] for s in seeds], [theirs[s] for s in seeds], level) if seeds else None


def _by_seed(runs: Sequence[StudyRun], place: tuple[str, int], quantity: Quantity) -> dict[int, float]:
    return {
        run.seed: quantity(run.record.final)
        for run in runs
        if (run.kind, run.depth) == place and run.record.final is not None
    }


def _places(runs: Sequence[StudyRun]) -> list[tuple[str, int]]:
    kinds = list(dict.fromkeys(run.kind for run in runs))
    return sorted({(run.kind, run.depth) for run in runs}, key=lambda place: (kinds.index(place[0]), place[1]))


def _describe(step: Step) -> str:
    found = step.train_error
    bounds = "" if found.low is None or found.high is None else f" [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"
    return f"depth {step.deep} minus depth {step.shallow} is {100 * found.mean:+.2f} points{bounds}, n = {found.n}"

"""Degradation: does training error grow with depth? Statistics over the runs of a paired study.

Deeper nets should do better, since the added layers could be the identity; plain ones do worse, in *training* error
(He et al. 2015, §1 and §4.1). Everything here is computed from records; nothing of torch is loaded.
"""

from collections.abc import Callable, Iterable, Sequence

from resnetlab.records import Cell, EpochRecord, Pair, Step, StudyRun, Verdict
from resnetlab.stats import Interval, Sample, paired_interval, sample

LEVEL = 0.95
MARGIN = 0.01

RULE = (
    "For each kind, the deepest net is compared with every shallower one: training error after the last epoch, paired "
    f"by seed. Both bounds of each difference are one-sided {LEVEL:.0%} bounds (Student's t), widened by Bonferroni's "
    "rule for the number of comparisons. Training error grows with depth if a lower bound is above 0; it does not grow "
    f"if every upper bound is at most {100 * MARGIN:g} point; else the study leaves it undecided. Bounds of so few "
    "seeds are not clipped to what errors can be."
)

Quantity = Callable[[EpochRecord], float]


def _train_loss(epoch: EpochRecord) -> float:
    return epoch.train.loss


def _train_error(epoch: EpochRecord) -> float:
    return epoch.train.error


def _test_error(epoch: EpochRecord) -> float:
    return epoch.test.error


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
                train_loss=_sample(map(_train_loss, final)),
                train_error=_sample(map(_train_error, final)),
                test_error=_sample(map(_test_error, final)),
            )
        )
    return cells


def make_pairs(runs: Sequence[StudyRun]) -> list[Pair]:
    """Plain minus residual at every depth, over the seeds for which both finished; none where there is no such seed."""

    def difference(depth: int, quantity: Quantity) -> Interval | None:
        return _paired(runs, ("plain", depth), ("residual", depth), quantity, LEVEL)

    pairs = []
    for depth in sorted({run.depth for run in runs}):
        loss, train, test = (difference(depth, quantity) for quantity in (_train_loss, _train_error, _test_error))
        if loss and train and test:
            pairs.append(Pair(depth=depth, train_loss=loss, train_error=train, test_error=test))
    return pairs


def make_verdicts(runs: Sequence[StudyRun]) -> list[Verdict]:
    """The answer for each kind, by ``RULE``."""
    return [_verdict(kind, runs) for kind in dict.fromkeys(run.kind for run in runs)]


def _verdict(kind: str, runs: Sequence[StudyRun]) -> Verdict:
    *shallower, deepest = sorted({run.depth for run in runs if run.kind == kind})
    # A two-sided interval of this level has one-sided bounds of LEVEL, over all comparisons together.
    level = 1 - 2 * (1 - LEVEL) / max(1, len(shallower))
    steps = []
    for depth in shallower:
        interval = _paired(runs, (kind, deepest), (kind, depth), _train_error, level)
        if interval:
            steps.append(Step(shallow=depth, deep=deepest, train_error=interval))
    grown = [step for step in steps if step.train_error.low is not None and step.train_error.low > 0]
    if grown:
        most = max(grown, key=lambda step: step.train_error.mean)
        reason = f"depth {deepest} minus depth {most.shallow} is {_points(most.train_error)}"
        return Verdict(kind=kind, answer="grows", reason=reason, steps=steps)
    if not shallower:
        return Verdict(kind=kind, answer="undecided", reason="the study has one depth only", steps=steps)
    if len(steps) < len(shallower):
        return Verdict(kind=kind, answer="undecided", reason="too few runs have finished", steps=steps)
    if any(step.train_error.high is None for step in steps):
        return Verdict(kind=kind, answer="undecided", reason="one seed tells nothing of the spread", steps=steps)
    largest = max(steps, key=lambda step: step.train_error.high or 0.0)
    reason = f"depth {deepest} minus depth {largest.shallow} is {_points(largest.train_error)}"
    flat = all(step.train_error.high is not None and step.train_error.high <= MARGIN for step in steps)
    return Verdict(kind=kind, answer="does not grow" if flat else "undecided", reason=reason, steps=steps)


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


def _sample(values: Iterable[float]) -> Sample | None:
    numbers = list(values)
    return sample(numbers) if numbers else None


def _points(interval: Interval) -> str:
    bounds = "" if interval.low is None or interval.high is None else _bounds(interval.low, interval.high)
    return f"{100 * interval.mean:+.2f} points{bounds}, n = {interval.n}"


def _bounds(low: float, high: float) -> str:
    return f" [{100 * low:+.2f}, {100 * high:+.2f}]"

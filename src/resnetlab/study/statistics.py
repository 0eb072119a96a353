"""What settings do to the error: statistics over the runs of a study over axes, from records alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Protocol

from resnetlab.core.stats import Sample, bootstrap_interval, holm, paired_interval, paired_p, sample
from resnetlab.records.run import EpochRecord
from resnetlab.records.study import Combination, ComparedRun, Contrast, Difference

Quantity = Callable[[EpochRecord], float]


def train_loss(epoch: EpochRecord) -> float:
    """Mean cross-entropy on the training set, in nats."""
    return epoch.trained.loss


def train_error(epoch: EpochRecord) -> float:
    """Share of the training set that is answered wrongly."""
    return epoch.trained.error


def test_error(epoch: EpochRecord) -> float:
    """Share of the test set that is answered wrongly."""
    return epoch.reported.error


def sample_of(quantity: Quantity, epochs: Iterable[EpochRecord]) -> Sample | None:
    """Mean and standard deviation over the last epochs of several runs; None for none."""
    values = [quantity(epoch) for epoch in epochs]
    return sample(values) if values else None


LEVEL = 0.95

RULE = (
    "Each value of an axis is compared with the axis's first one, wherever all other axes agree: error after the last "
    f"epoch, paired by seed, over the seeds for which both runs finished. The {LEVEL:.0%} intervals are Student's, and "
    "beside them the BCa bootstrap's (9,999 resamples), which with few seeds is too narrow. p is that of the paired "
    "t-test, by Holm's rule over all comparisons of the same error in this study; a difference is called significant "
    f"where that is below {1 - LEVEL:.2f}, and not tested where it is the same in every seed. What is not significant "
    "may still be there: few seeds show large effects only."
)


class Placed(Protocol):
    """A run with its place in a study."""

    @property
    def values(self) -> dict[str, str]:
        """Its value on every axis."""


def make_combinations(runs: Sequence[ComparedRun]) -> list[Combination]:
    """Mean and standard deviation of every combination that has a run, in the order of the runs."""
    found = []
    for values in combinations_of(runs):
        records = [run.record for run in runs if run.values == values]
        final = [record.final for record in records if record.final]
        found.append(
            Combination(
                values=values,
                model=records[0].model,
                parameters=records[0].parameters,
                multiply_adds=records[0].multiply_adds,
                diverged=len(records) - len(final),
                train_loss=sample_of(train_loss, final),
                train_error=sample_of(train_error, final),
                test_error=sample_of(test_error, final),
            )
        )
    return found


def make_contrasts(runs: Sequence[ComparedRun], axes: Mapping[str, Sequence[str]]) -> list[Contrast]:
    """Every value of every axis minus the axis's first one, by ``RULE``, where both have a run."""
    contrasts = [_contrast(runs, *places) for places in compared_places(axes, combinations_of(runs))]
    train, test = ([getattr(c, name) for c in contrasts] for name in ("train_error", "test_error"))
    return [
        replace(contrast, train_error=ours, test_error=theirs)
        for contrast, ours, theirs in zip(contrasts, adjust(train), adjust(test), strict=True)
    ]


def compared_places(
    axes: Mapping[str, Sequence[str]], known: Sequence[dict[str, str]]
) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """What is compared with what: axis, its first value, another one, and the values of all other axes, wherever both
    combinations are ``known``."""
    for axis, (first, *rest) in axes.items():
        for others in _others(axes, axis):
            for value in rest:
                if {**others, axis: value} in known and {**others, axis: first} in known:
                    yield axis, first, value, others


def compare(left: Mapping[int, float], right: Mapping[int, float]) -> Difference | None:
    """``left`` minus ``right``, both by seed, over the seeds that both have; None where there is none."""
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        return None
    pair = [left[seed] for seed in seeds], [right[seed] for seed in seeds]
    return Difference(
        student=paired_interval(*pair, LEVEL),
        bootstrap=bootstrap_interval(*pair, LEVEL),
        p=paired_p(*pair),
        adjusted=None,
    )


def adjust(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Each with its p adjusted for those of all."""
    values = iter(holm([d.p for d in differences if d and d.p is not None]))
    return [replace(d, adjusted=next(values)) if d and d.p is not None else d for d in differences]


def _contrast(runs: Sequence[ComparedRun], axis: str, first: str, value: str, others: dict[str, str]) -> Contrast:
    ours, theirs = {**others, axis: value}, {**others, axis: first}
    return Contrast(
        axis=axis,
        first=first,
        value=value,
        others=others,
        train_error=_difference(runs, ours, theirs, train_error),
        test_error=_difference(runs, ours, theirs, test_error),
    )


def _difference(
    runs: Sequence[ComparedRun], ours: dict[str, str], theirs: dict[str, str], quantity: Quantity
) -> Difference | None:
    return compare(_by_seed(runs, ours, quantity), _by_seed(runs, theirs, quantity))


def _by_seed(runs: Sequence[ComparedRun], values: dict[str, str], quantity: Quantity) -> dict[int, float]:
    return {run.seed: quantity(run.record.final) for run in runs if run.values == values and run.record.final}


def combinations_of(runs: Iterable[Placed]) -> list[dict[str, str]]:
    """The values of the runs, each combination once, in the order of the runs."""
    found: list[dict[str, str]] = []
    for run in runs:
        if run.values not in found:
            found.append(run.values)
    return found


def _others(axes: Mapping[str, Sequence[str]], axis: str) -> list[dict[str, str]]:
    """Every combination of the values of all axes but one."""
    rest = {name: values for name, values in axes.items() if name != axis}
    return [dict(zip(rest, values, strict=True)) for values in product(*rest.values())]

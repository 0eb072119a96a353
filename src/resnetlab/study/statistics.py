"""What settings do to error and loss: conditions and contrasts over the runs of a study, from records alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Protocol

from resnetlab.core.stats import Sample, bootstrap_interval, holm, paired_interval, paired_p, sample
from resnetlab.records.run import EpochRecord
from resnetlab.records.study import Condition, Contrast, Difference, StudyRun

LEVEL = 0.95

RULE = (
    "Each value of an axis is compared with the axis's first one (of shortcuts: with the first that is not none), "
    "wherever all other axes agree: figures after the last epoch, paired by seed, over the seeds for which both runs "
    f"finished. The {LEVEL:.0%} intervals are Student's, and beside them the BCa bootstrap's (9,999 resamples), which "
    "with few seeds is too narrow. p is that of the paired t-test, by Holm's rule over all contrasts of the same "
    f"quantity in this study; a difference is called significant where that is below {1 - LEVEL:.2f}, and not tested "
    "where it is the same in every seed. What is not significant may still be there: few seeds show large effects only."
)

Quantity = Callable[[EpochRecord], float]
Values = dict[str, str]


class Placed(Protocol):
    """A run with its place in a study."""

    @property
    def values(self) -> Values:
        """Its value on every axis."""


def train_loss(epoch: EpochRecord) -> float:
    """Mean cross-entropy on the training set, in nats."""
    return epoch.trained.loss


def train_error(epoch: EpochRecord) -> float:
    """Fraction of the training set that is answered wrongly."""
    return epoch.trained.error


def test_error(epoch: EpochRecord) -> float:
    """Fraction of the test set that is answered wrongly."""
    return epoch.reported.error


def make_conditions(runs: Sequence[StudyRun]) -> list[Condition]:
    """Mean and standard deviation of every condition that has a run, in the order of the runs."""
    found = []
    for values in conditions_of(runs):
        records = [run.record for run in runs if run.values == values]
        final = [record.final for record in records if record.final]
        found.append(
            Condition(
                values=values,
                model=records[0].model,
                parameters=records[0].parameters,
                multiply_adds=records[0].multiply_adds,
                diverged=len(records) - len(final),
                train_loss=_over_seeds(train_loss, final),
                train_error=_over_seeds(train_error, final),
                test_error=_over_seeds(test_error, final),
            )
        )
    return found


def make_contrasts(runs: Sequence[StudyRun], axes: Mapping[str, Sequence[str]]) -> list[Contrast]:
    """Every value of each compared axis minus the one of reference, by ``RULE``, where both have a run."""
    places = [
        place
        for place in compared_places(reference_first(axes), conditions_of(runs))
        if place[0] in compared_axes(axes)
    ]
    loss, train, test = (
        adjust(
            [
                compare(
                    by_seed(runs, {**others, axis: value}, quantity), by_seed(runs, {**others, axis: first}, quantity)
                )
                for axis, first, value, others in places
            ]
        )
        for quantity in (train_loss, train_error, test_error)
    )
    return [
        Contrast(
            axis=axis,
            first=first,
            value=value,
            others=others,
            train_loss=loss[number],
            train_error=train[number],
            test_error=test[number],
        )
        for number, (axis, first, value, others) in enumerate(places)
    ]


def asks_about_degradation(axes: Mapping[str, Sequence[str]]) -> bool:
    """Whether an axis depth stands beside plain or residual nets, so that there is a verdict on degradation."""
    return "depth" in axes and not {"none", "default"}.isdisjoint(axes.get("shortcut", ()))


def compared_axes(axes: Mapping[str, Sequence[str]]) -> list[str]:
    """The axes that have contrasts: all, but for the depth where a verdict compares the depths."""
    return [axis for axis in axes if axis != "depth" or not asks_about_degradation(axes)]


def reference_first(axes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The axes, with the value that others are compared with first: a residual net rather than the plain one."""
    return {
        axis: sorted(values, key=lambda value: value == "none") if axis == "shortcut" else list(values)
        for axis, values in axes.items()
    }


def compared_places(
    axes: Mapping[str, Sequence[str]], known: Sequence[Values]
) -> Iterator[tuple[str, str, str, Values]]:
    """What is compared with what: axis, its first value, another one, and the values of all other axes, wherever both
    conditions are ``known``."""
    for axis, (first, *rest) in axes.items():
        others = {name: values for name, values in axes.items() if name != axis}
        for place in product(*others.values()):
            rest_of_place = dict(zip(others, place, strict=True))
            for value in rest:
                if {**rest_of_place, axis: value} in known and {**rest_of_place, axis: first} in known:
                    yield axis, first, value, rest_of_place


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


def by_seed(runs: Sequence[StudyRun], values: Values, quantity: Quantity) -> dict[int, float]:
    """The quantity of every run of that condition that finished."""
    return {run.seed: quantity(run.record.final) for run in runs if run.values == values and run.record.final}


def conditions_of(runs: Iterable[Placed]) -> list[Values]:
    """The values of the runs, each condition once, in the order of the runs."""
    found: list[Values] = []
    for run in runs:
        if run.values not in found:
            found.append(run.values)
    return found


def _over_seeds(quantity: Quantity, epochs: Iterable[EpochRecord]) -> Sample | None:
    values = [quantity(epoch) for epoch in epochs]
    return sample(values) if values else None

"""What settings do to error and loss: conditions and contrasts over the runs of a study, from records alone."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from typing import Protocol

from resnetlab.core.stats import Sample, bootstrap_interval, holm, paired_interval, paired_p, sample
from resnetlab.records.run import EpochRecord
from resnetlab.records.study import LEAST_SEEDS, Condition, Contrast, Difference, PairedCounts, StudyRun
from resnetlab.study.outcomes import Outcomes, count_pairs

LEVEL = 0.95

SIGNIFICANT = (
    f"A difference is called significant where p, that of the paired t-test by Holm's rule, is below {1 - LEVEL:.2f}, "
    f"with {LEAST_SEEDS} seeds or more. Where it is the same in every seed there is no interval and no t-test, and the "
    "exact sign test by Holm's rule decides; where the comparison is bimodal, that must say so too. What is not "
    "significant may still be there: few seeds show large effects only."
)
"""The one rule of all tables and verdicts."""

RULE = (
    "Each value of an axis is compared with the axis's first one (of shortcuts: with the first that is not none), "
    "wherever all other axes agree: figures after the last epoch, paired by seed, over the seeds for which both runs "
    f"finished. The {LEVEL:.0%} intervals are Student's, and beside them the BCa bootstrap's (9,999 resamples), which "
    "with few seeds is too narrow. The runs that trained are compared by McNemar's exact test. Holm's rule takes all "
    f"contrasts of the same quantity in this study together. {SIGNIFICANT}"
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
    found, outcomes = [], Outcomes(runs)
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
                trained=outcomes.share(values),
                untrained=outcomes.are_untrained(values),
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
    outcomes = Outcomes(runs)
    pairs = [({**others, axis: value}, {**others, axis: first}) for axis, first, value, others in places]
    loss, train, test = (
        adjust(
            [
                compare(by_seed(runs, left, quantity), by_seed(runs, right, quantity), outcomes.is_mixed(left, right))
                for left, right in pairs
            ]
        )
        for quantity in (train_loss, train_error, test_error)
    )
    trained = adjust_counts([outcomes.compare(*pair) for pair in pairs])
    return [
        Contrast(
            axis=axis,
            first=first,
            value=value,
            others=others,
            train_loss=loss[number],
            train_error=train[number],
            test_error=test[number],
            trained=trained[number],
            untrained=outcomes.are_untrained(*pairs[number]),
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


def compare(
    left: Mapping[int, float], right: Mapping[int, float], bimodal: bool = False, margin: float = 0.0
) -> Difference | None:
    """``left`` minus ``right``, both by seed, over the seeds that both have; None where there is none.

    Differences within ``margin`` count neither as more nor as less.
    """
    seeds = sorted(left.keys() & right.keys())
    if not seeds:
        return None
    pair = [left[seed] for seed in seeds], [right[seed] for seed in seeds]
    return Difference(
        student=paired_interval(*pair, LEVEL),
        bootstrap=bootstrap_interval(*pair, LEVEL),
        p=paired_p(*pair),
        adjusted=None,
        counts=count_pairs([a - b for a, b in zip(*pair, strict=True)], margin),
        bimodal=bimodal,
    )


def adjust(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """Each with its p, and that of its counts, adjusted for those of all."""
    values = iter(holm([d.p for d in differences if d and d.p is not None]))
    counts = adjust_counts([d.counts if d else None for d in differences])
    return [
        replace(d, adjusted=next(values) if d.p is not None else None, counts=count) if d else None
        for d, count in zip(differences, counts, strict=True)
    ]


def adjust_counts(counts: Sequence[PairedCounts | None]) -> list[PairedCounts | None]:
    """Each with its p adjusted for those of all."""
    values = iter(holm([count.p for count in counts if count]))
    return [replace(count, adjusted=next(values)) if count else None for count in counts]


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

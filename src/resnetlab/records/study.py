"""A study as a record: its runs, each condition over the seeds, paired contrasts, and the verdicts on degradation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resnetlab.core.stats import Interval, Sample, Share
from resnetlab.records.gradients import Flow
from resnetlab.records.run import RunRecord

KINDS = {"none": "plain", "default": "residual"}
"""What a net is called by its shortcut, where a study has no others than these two."""
LEAST_SEEDS = 3
"""Fewer seeds decide nothing. Of two conditions that train with a chance of one half, all runs of one and none of the
other do so in one study of eight with two seeds, in one of 32 with three."""


def in_words(axes: Mapping[str, Sequence[str]], values: Mapping[str, str]) -> dict[str, str]:
    """Values of axes as people read them: of ``shortcut=none,default`` the axis is ``kind``, plain or residual."""
    if not set(axes.get("shortcut", ["A"])) <= KINDS.keys():
        return dict(values)
    return {
        "kind" if axis == "shortcut" else axis: KINDS[value] if axis == "shortcut" else value
        for axis, value in values.items()
    }


def axes_in_words(axes: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Every axis with its values, as people read them."""
    found: dict[str, list[str]] = {}
    for axis, values in axes.items():
        for value in values:
            ((name, word),) = in_words(axes, {axis: value}).items()
            found.setdefault(name, []).append(word)
    return found


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One run: its value on every axis, its record, and what its gradients did before and after training."""

    values: dict[str, str]
    seed: int
    flow_start: Flow
    flow_end: Flow
    record: RunRecord


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One value of every axis, over the seeds. A figure is None where every run diverged.

    ``trained`` counts the runs that trained, those that diverged among the others; ``untrained`` says that every run
    that finished is hardly better than guessing.
    """

    values: dict[str, str]
    model: str
    parameters: int
    multiply_adds: int
    diverged: int
    train_loss: Sample | None
    train_error: Sample | None
    test_error: Sample | None
    trained: Share | None = None
    untrained: bool = False


@dataclass(frozen=True, kw_only=True)
class PairedCounts:
    """In ``more`` of ``n`` seeds the first of a pair has more, in ``less`` of them the second; in the rest neither.

    ``p`` is that of the exact sign test (McNemar's where yes and no are counted), ``adjusted`` by Holm's rule over the
    same comparisons as that of the t-test beside it.
    """

    n: int
    more: int
    less: int
    p: float
    adjusted: float | None = None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One quantity of a condition minus that of another, paired by seed.

    ``student`` and ``bootstrap`` are intervals of the mean. ``p`` is that of the paired t-test, None for one seed and
    where all seeds differ by the same; ``adjusted`` is p by Holm's rule over all contrasts of this quantity in the
    study that have one. ``counts`` says in how many seeds the difference is positive or negative; ``bimodal`` that of
    the runs of one of the conditions some trained and others did not.
    """

    student: Interval
    bootstrap: Interval
    p: float | None
    adjusted: float | None
    counts: PairedCounts | None = None
    bimodal: bool = False

    @property
    def significant(self) -> bool:
        """Whether p by Holm's rule is below 1 - the level of the intervals, with ``LEAST_SEEDS`` or more.

        Where all seeds differ by the same there is no t-test, and the exact test of the counts decides. Where the runs
        are bimodal, both must say so.
        """
        if self.student.n < LEAST_SEEDS:
            return False
        limit = 1 - self.student.level
        by_counts = self.counts is not None and self.counts.adjusted is not None and self.counts.adjusted < limit
        if self.adjusted is None:
            return by_counts
        return self.adjusted < limit and (by_counts or not self.bimodal)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """``value`` of an axis minus ``first``, where the other axes have the values ``others``.

    A difference is None where there is no seed for which both runs finished. ``trained`` pairs the runs that trained
    with one and not with the other; ``untrained`` says that both nets are hardly better than guessing.
    """

    axis: str
    first: str
    value: str
    others: dict[str, str]
    train_loss: Difference | None
    train_error: Difference | None
    test_error: Difference | None
    trained: PairedCounts | None = None
    untrained: bool = False


@dataclass(frozen=True, kw_only=True)
class DepthStep:
    """Training error of a net minus that of a shallower one, paired by seed.

    ``train_error`` has bounds that hold for all steps of the verdict together (Bonferroni). ``difference`` is what a
    contrast has, with Holm's rule over the steps of the verdict; its counts leave out what is within the margin of the
    verdict.
    """

    shallow: int
    deep: int
    train_error: Interval
    difference: Difference | None = None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Does training error grow with depth? The answer where all axes but depth have ``values``, and its steps."""

    values: dict[str, str]
    answer: Literal["grows", "does not grow", "undecided", "untrained"]
    reason: str
    steps: list[DepthStep]


@dataclass(frozen=True, kw_only=True)
class TriedValue:
    """A value of the tuned setting at one condition: its ``n`` tuning runs, how many diverged and how many trained, and
    their mean training error, where one that diverged counts as 1."""

    value: str
    n: int
    diverged: int
    trained: int
    train_error: float


@dataclass(frozen=True, kw_only=True)
class Band:
    """The values around the chosen one at which every tuning run trained, and the width in ``decades``, log₁₀ (high /
    low). It is ``open_below`` or ``open_above`` where it reaches that end of the values tried."""

    low: str
    high: str
    decades: float
    open_below: bool
    open_above: bool


@dataclass(frozen=True, kw_only=True)
class TunedCondition:
    """What was tried at one condition, and ``chosen``; ``edge`` says that this is the lowest or highest value tried.

    ``band`` is None where not even at the chosen value every tuning run trained.
    """

    values: dict[str, str]
    chosen: str
    edge: Literal["", "lowest", "highest"]
    band: Band | None
    tried: list[TriedValue]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The setting ``name`` that was tuned, the values of its ``grid`` and the seeds that chose, by ``rule``.

    ``trained_below`` is the training error below which a tuning run trained, None where none finished.
    """

    name: str
    grid: list[str]
    seeds: list[int]
    rule: str
    trained_below: float | None
    conditions: list[TunedCondition]


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study, whole or as far as it has come: settings, runs, and the statistics over seeds.

    ``command`` reproduces the study; ``planned`` is the number of runs that it has when whole; ``rules`` say how
    contrasts and verdicts are made. ``trained_below`` is the training error below which a run trained, None where no
    run finished. ``verdicts`` is empty where the study does not ask about degradation. Where a setting was tuned, all
    of these are of runs at the values that ``tuning`` has chosen, and of none that chose.
    """

    settings: dict[str, Any]
    command: str
    axes: dict[str, list[str]]
    rules: dict[Literal["trained", "contrasts", "degradation", "gradients"], str]
    planned: int
    runs: list[StudyRun]
    conditions: list[Condition]
    contrasts: list[Contrast]
    verdicts: list[Verdict]
    trained_below: float | None = None
    tuning: Tuning | None = None
    format: Literal[2] = 2

"""A study as a record: its runs, each condition over the seeds, paired differences, and the verdicts on degradation."""

from dataclasses import dataclass
from typing import Any, Literal

from resnetlab.core.stats import Interval, Sample
from resnetlab.records.gradients import Flow
from resnetlab.records.run import RunRecord


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """One run of a study: its place in the grid, its record, and what its gradients did before and after training."""

    kind: str
    depth: int
    seed: int
    flow_start: Flow
    flow_end: Flow
    record: RunRecord


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind at one depth, over its seeds. A figure is None where every run diverged."""

    kind: str
    depth: int
    model: str
    parameters: int
    multiply_adds: int
    diverged: int
    train_loss: Sample | None
    train_error: Sample | None
    test_error: Sample | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Plain minus residual at one depth, paired by seed, over the seeds for which both runs finished."""

    depth: int
    train_loss: Interval
    train_error: Interval
    test_error: Interval


@dataclass(frozen=True, kw_only=True)
class Step:
    """Training error of a net minus that of a shallower one, paired by seed."""

    shallow: int
    deep: int
    train_error: Interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Does training error grow with depth? The answer for one kind, and the comparisons behind it."""

    kind: str
    answer: Literal["grows", "does not grow", "undecided"]
    reason: str
    steps: list[Step]


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study, whole or as far as it has come: settings, runs, and the statistics over seeds.

    ``command`` makes the study again; ``planned`` is the number of runs that it has when whole; ``rules`` say how the
    verdicts on degradation and gradients were reached.
    """

    settings: dict[str, Any]
    command: str
    rules: dict[Literal["degradation", "gradients"], str]
    planned: int
    runs: list[StudyRun]
    cells: list[Cell]
    pairs: list[Pair]
    verdicts: list[Verdict]
    format: Literal[1] = 1


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run: its value on every axis, its record, and what its gradients did before and after training."""

    values: dict[str, str]
    seed: int
    flow_start: Flow
    flow_end: Flow
    record: RunRecord


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One value of every axis, over the seeds. A figure is None where every run diverged."""

    values: dict[str, str]
    model: str
    parameters: int
    multiply_adds: int
    diverged: int
    train_loss: Sample | None
    train_error: Sample | None
    test_error: Sample | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One quantity of a combination minus that of another, paired by seed.

    ``student`` and ``bootstrap`` are intervals of the mean. ``p`` is that of the paired t-test, None for one seed and
    where all seeds differ by the same; ``adjusted`` is p by Holm's rule over every comparison of this quantity in the
    study that has one.
    """

    student: Interval
    bootstrap: Interval
    p: float | None
    adjusted: float | None

    @property
    def significant(self) -> bool:
        """Whether the adjusted p is below 1 - the level of the intervals; never so without a p."""
        return self.adjusted is not None and self.adjusted < 1 - self.student.level


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """``value`` of an axis minus its first value, where the other axes have the values ``others``.

    A difference is None where there is no seed for which both runs finished.
    """

    axis: str
    first: str
    value: str
    others: dict[str, str]
    train_error: Difference | None
    test_error: Difference | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A study over axes, whole or as far as it has come.

    ``command`` makes the study again; ``axes`` are the names and values that it has; ``planned`` is the number of runs
    that it has when whole; ``rule`` says what is compared with what, and how.
    """

    settings: dict[str, Any]
    command: str
    axes: dict[str, list[str]]
    rule: str
    planned: int
    runs: list[ComparedRun]
    combinations: list[Combination]
    contrasts: list[Contrast]
    format: Literal[1] = 1

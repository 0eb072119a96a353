"""The record of a study over any settings: its runs, each combination over the seeds, and paired differences."""

from dataclasses import dataclass
from typing import Any, Literal

from resnetlab.records import Flow, RunRecord
from resnetlab.stats import Interval, Sample


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

"""A study as a record: its runs, each condition over the seeds, paired contrasts, and the verdicts on degradation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from resnetlab.core.stats import Interval, Sample
from resnetlab.records.gradients import Flow
from resnetlab.records.run import RunRecord

KINDS = {"none": "plain", "default": "residual"}
"""What a net is called by its shortcut, where a study has no others than these two."""


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
    """One quantity of a condition minus that of another, paired by seed.

    ``student`` and ``bootstrap`` are intervals of the mean. ``p`` is that of the paired t-test, None for one seed and
    where all seeds differ by the same; ``adjusted`` is p by Holm's rule over all contrasts of this quantity in the
    study that have one.
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
    """``value`` of an axis minus ``first``, where the other axes have the values ``others``.

    A difference is None where there is no seed for which both runs finished.
    """

    axis: str
    first: str
    value: str
    others: dict[str, str]
    train_loss: Difference | None
    train_error: Difference | None
    test_error: Difference | None


@dataclass(frozen=True, kw_only=True)
class DepthStep:
    """Training error of a net minus that of a shallower one, paired by seed."""

    shallow: int
    deep: int
    train_error: Interval


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Does training error grow with depth? The answer where all axes but depth have ``values``, and its steps."""

    values: dict[str, str]
    answer: Literal["grows", "does not grow", "undecided"]
    reason: str
    steps: list[DepthStep]


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study, whole or as far as it has come: settings, runs, and the statistics over seeds.

    ``command`` reproduces the study; ``planned`` is the number of runs that it has when whole; ``rules`` say how
    contrasts and verdicts are made. ``verdicts`` is empty where the study does not ask about degradation.
    """

    settings: dict[str, Any]
    command: str
    axes: dict[str, list[str]]
    rules: dict[Literal["contrasts", "degradation", "gradients"], str]
    planned: int
    runs: list[StudyRun]
    conditions: list[Condition]
    contrasts: list[Contrast]
    verdicts: list[Verdict]
    format: Literal[2] = 2

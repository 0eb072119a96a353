"""The diagnosis of a study as a record: every run read in the same way, and what that says over the seeds."""

from dataclasses import dataclass
from typing import Any, Literal

from resnetlab.core.stats import Sample
from resnetlab.records.diagnosis import NetReading, Part
from resnetlab.records.gradients import Flow
from resnetlab.records.study import Difference

STUDY_DIAGNOSIS = "study-diagnosis.json"
"""The file of a ``StudyDiagnosis`` in its folder."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of every run: of which part of a diagnosis, and what it is called.

    ``factor`` is by what it is shown multiplied: 100 for a share in percent, or points between two of them.
    """

    name: str
    part: Part
    words: str
    factor: float


@dataclass(frozen=True, kw_only=True)
class RunReading:
    """One trained network of the study: its place, what its gradients did before training, and what was read of it."""

    values: dict[str, str]
    seed: int
    flow_start: Flow
    net: NetReading


@dataclass(frozen=True, kw_only=True)
class CombinationReading:
    """One value of every axis, over the seeds. A measure is None where no run has it; ``verdicts`` counts, by the part
    of the diagnosis, how many runs had which."""

    values: dict[str, str]
    n: int
    measures: dict[str, Sample | None]
    verdicts: dict[str, dict[str, int]]


@dataclass(frozen=True, kw_only=True)
class MeasureContrast:
    """``value`` of an axis minus its first value, where the other axes have the values ``others``, for each measure.

    A difference is None where there is no seed in which both runs have that measure.
    """

    axis: str
    first: str
    value: str
    others: dict[str, str]
    differences: dict[str, Difference | None]


@dataclass(frozen=True, kw_only=True)
class StudyDiagnosis:
    """What the trained networks of a study are like, over its seeds.

    ``command`` makes it again, ``study`` is the one that made the runs. ``axes`` are those of the study, of which
    ``measures`` were taken on ``batch`` training images and, for lesions, at most ``images`` test images.
    ``left_out`` says which runs could not be read, and why; ``rules`` say what the measures and differences are.
    """

    command: str
    study: str
    axes: dict[str, list[str]]
    measures: list[Measure]
    batch: int
    pictures: int
    runs: list[RunReading]
    left_out: list[str]
    combinations: list[CombinationReading]
    contrasts: list[MeasureContrast]
    rules: list[str]
    data: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    format: Literal[1] = 1

"""The diagnosis of a study as a record: every run measured in the same way, and what that says over the seeds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resnetlab.core.files import read_json
from resnetlab.core.serialize import from_plain
from resnetlab.core.stats import Sample
from resnetlab.records.diagnosis import Analysis, NetResult, SplitName, convert, net_from_format_1, renamed
from resnetlab.records.gradients import Flow
from resnetlab.records.study import Difference

STUDY_DIAGNOSIS = "study-diagnosis.json"
"""The file of a ``StudyDiagnosis`` in its folder."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number of every run: of which analysis, and what it is called.

    It is shown multiplied by ``factor``: 100 for a share in percent, or points between two of them.
    """

    name: str
    analysis: Analysis
    words: str
    factor: float


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One trained network of the study: its condition and seed, how its gradients flowed before training, and what was
    measured of it."""

    values: dict[str, str]
    seed: int
    flow_start: Flow
    net: NetResult


@dataclass(frozen=True, kw_only=True)
class ConditionResult:
    """One value of every axis, over the seeds. A measure is None where no run has it; ``verdicts`` counts, by analysis,
    how many runs had which."""

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

    ``command`` reproduces it, ``study`` is the command that made the runs. ``axes`` are those of the study, of which
    ``measures`` were taken on ``batch`` training images and, for lesions, at most ``images`` images of ``split``.
    ``left_out`` says which runs could not be measured, and why; ``rules`` say what the measures and differences are.
    """

    command: str
    study: str
    axes: dict[str, list[str]]
    measures: list[Measure]
    split: SplitName = "test"
    batch: int
    images: int
    runs: list[RunResult]
    left_out: list[str]
    conditions: list[ConditionResult]
    contrasts: list[MeasureContrast]
    rules: list[str]
    data: dict[str, Any]
    environment: dict[str, Any]
    seconds: float
    format: Literal[2] = 2


def read_study_diagnosis(path: Path) -> StudyDiagnosis:
    """The record in ``path``, of this format or of 1. Raises ``DataError`` where it is missing, damaged or none."""
    return from_plain(StudyDiagnosis, convert(read_json(path), _from_format_1, str(path)), str(path))


def _from_format_1(old: dict[str, Any]) -> dict[str, Any]:
    new = renamed(old, {"pictures": "images", "combinations": "conditions"})
    new["measures"] = [renamed(measure, {"part": "analysis"}) for measure in new["measures"]]
    new["runs"] = [run | {"net": net_from_format_1(run["net"])} for run in new["runs"]]
    return new

"""What every study has: a folder, runs that are planned, and someone who watches."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resnetlab.core.errors import DataError
from resnetlab.core.serialize import as_plain, read_record
from resnetlab.records.run import RunRecord
from resnetlab.train.callbacks import Callback, NoCallback
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import RECORD

STUDY, RUNS, RESULTS = "study.json", "runs", "results.json"

LONGEST = 40
"""Letters of a value in the name of a folder."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One place of a study, by the value of each of its axes, and the recipe that fills it."""

    values: dict[str, str]
    seed: int
    recipe: Recipe
    label: str
    """What the run is called where people read of it, but for its seed."""

    @property
    def name(self) -> str:
        return "-".join([*map(folder_word, self.values.values()), f"seed{self.seed}"])

    def folder(self, out: Path) -> Path:
        """Where the run is, in the study's folder ``out``."""
        return out / RUNS / self.name

    def has_ended(self, out: Path) -> bool:
        """Whether the run is recorded."""
        return (self.folder(out) / RECORD).is_file()


class StudyCallback(Protocol):
    """What a study tells while it runs."""

    def on_plan(self, planned: Sequence[PlannedRun], ended: Mapping[str, RunRecord]) -> None:
        """These runs make the study, and those that have ended before have these records, by the run's name."""

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Callback:
        """Run ``number`` of ``total``, counted from 1, begins; the answer watches it."""

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:
        """The run is recorded."""

    def on_found(self, run: PlannedRun, number: int, total: int, record: RunRecord) -> None:
        """Another worker has recorded the run."""


class NoStudyCallback:
    """A callback of studies that does nothing."""

    def on_plan(self, planned: Sequence[PlannedRun], ended: Mapping[str, RunRecord]) -> None:
        pass

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Callback:  # noqa: ARG002
        return NoCallback()

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:
        pass

    def on_found(self, run: PlannedRun, number: int, total: int, record: RunRecord) -> None:
        pass


def folder_word(value: str) -> str:
    """The value as a part of a folder's name; one that is long or has odd letters is told apart by a sum."""
    word = re.sub(r"[^A-Za-z0-9._+]+", "_", value)[:LONGEST]
    if word == value and word.strip("."):
        return word
    return f"{word}~{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def read_ended(run: PlannedRun, out: Path) -> RunRecord:
    """The record of a run that has ended. Raises ``DataError`` where it is damaged, or that of another run."""
    path = run.folder(out) / RECORD
    try:
        record = read_record(RunRecord, path)
        if record.recipe != as_plain(run.recipe):
            raise DataError(f"{path} is the record of another run")
    except DataError as error:
        raise DataError(f"{error}; delete the file, and the study makes it again from the run's checkpoint") from error
    return record

"""Planned runs of a study, and their folders.

A study folder holds ``study.json`` (its settings), ``runs/<run>/`` (each an ordinary run folder), ``results.json`` and
the page; one that tunes also ``tuning.json``, as soon as it has chosen.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from resnetlab.core.config import build_settings, parse_yaml
from resnetlab.core.errors import ConfigError, DataError, require
from resnetlab.core.serialize import as_plain, read_record
from resnetlab.records.run import RunRecord
from resnetlab.records.study import in_words
from resnetlab.study.config import TUNING_SEEDS, Axes, Study
from resnetlab.study.keep import Keep
from resnetlab.train.callbacks import Callback, NoCallback
from resnetlab.train.folder import RECORD
from resnetlab.train.recipe import Recipe, changed_settings

if TYPE_CHECKING:
    from resnetlab.data.dataset import ImageData
    from resnetlab.train.signals import StopRequest

STUDY, RUNS, RESULTS = "study.json", "runs", "results.json"

LONGEST = 40
"""Letters of a value in the name of a folder."""
RESIDUAL_ONLY = ("zero_init_residual", "scale_residual", "scaling")
"""Options that start a branch near zero: a plain net has no identity to start from."""


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One place of a study, by the value of each of its axes, and the recipe that fills it.

    ``words`` are the values by the names that people read.
    """

    values: dict[str, str]
    words: dict[str, str]
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Its folder."""
        return "-".join([*map(folder_word, self.words.values()), f"seed{self.seed}"])

    @property
    def label(self) -> str:
        """What it is called in lines of progress, but for its seed."""
        return ", ".join(f"{axis} {value}" for axis, value in self.words.items())

    def folder(self, out: Path) -> Path:
        """Where the run is, in the study's folder ``out``."""
        return out / RUNS / self.name

    def has_ended(self, out: Path) -> bool:
        """Whether the run is recorded."""
        return (self.folder(out) / RECORD).is_file()


class StudyCallback(Protocol):
    """What a study calls while it runs."""

    def on_plan(self, planned: Sequence[PlannedRun], ended: Mapping[str, RunRecord]) -> None:
        """These runs make the study, and those that have ended before have these records, by the run's name."""

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Callback:
        """Run ``number`` of ``total``, counted from 1, begins; the answer is the run's own callback."""

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:
        """The run is recorded."""

    def on_found(self, run: PlannedRun, number: int, total: int, record: RunRecord) -> None:
        """Another worker has recorded the run."""

    def on_note(self, text: str) -> None:
        """Something that a user should know: who else works on the study, and what is waited for."""


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

    def on_note(self, text: str) -> None:
        pass


DataKey = tuple[object, ...]


def data_key(recipe: Recipe) -> DataKey:
    """Which data a run reads: those that no axis changes are read once."""
    return recipe.data, recipe.split_seed, recipe.validation, recipe.decode, recipe.weights


@dataclass(frozen=True, kw_only=True)
class Work:
    """The runs of the study in the folder ``out``, for whoever does them.

    ``sets`` are their data by ``data_key``, and ``place`` is where they are now, if they have moved. ``keep`` is what a
    run keeps (``keep_of``).
    """

    planned: Sequence[PlannedRun]
    out: Path
    sets: "Mapping[DataKey, ImageData]"
    place: str | None
    callback: StudyCallback
    stop: "StopRequest | None"
    keep: Keep

    def data_of(self, run: PlannedRun) -> "ImageData":
        """The data that the run reads."""
        return self.sets[data_key(run.recipe)]


def plan_runs(study: Study, chosen: Mapping[tuple[str, ...], Mapping[str, str]] | None = None) -> list[PlannedRun]:
    """Every combination, seed by seed, so that an interrupted study has all of its first seeds; with the settings that
    were ``chosen`` for the values of its axes, which a study that tunes must have.

    Raises ``ConfigError`` for values that make no recipe.
    """
    require(chosen is not None or not study.tune, "chosen", chosen, "what the runs that tune have chosen")
    return _plan(study, study.axes, study.recipe.seed, study.seeds, chosen or {})


def plan_tuning(study: Study) -> list[PlannedRun]:
    """Every combination with every value of the tuned setting, for the seeds that tune; none where nothing is tuned."""
    axes = study.axes | study.tune
    return _plan(study, axes, study.recipe.seed + TUNING_SEEDS, study.tune_seeds, {}) if study.tune else []


def _plan(
    study: Study, axes: Axes, first: int, seeds: int, chosen: Mapping[tuple[str, ...], Mapping[str, str]]
) -> list[PlannedRun]:
    planned = []
    for seed, place in product(range(first, first + seeds), product(*axes.values())):
        values = dict(zip(axes, place, strict=True))
        recipe = recipe_at(study.recipe, {**values, **chosen.get(place, {})}, seed)
        planned.append(PlannedRun(values=values, words=in_words(axes, values), seed=seed, recipe=recipe))
    return planned


def recipe_at(recipe: Recipe, values: Mapping[str, str], seed: int) -> Recipe:
    """The recipe with those settings instead of its own; a plain net goes without the options of ``RESIDUAL_ONLY``.

    Raises ``ConfigError`` for a value of another type, or that makes no recipe.
    """
    plain = as_plain(recipe) | {"seed": seed}
    if values.get("shortcut") == "none":
        plain["options"] = {name: text for name, text in recipe.options.items() if name not in RESIDUAL_ONLY}
    # The depth is that of the model, which may be an axis too.
    for name in sorted(values, key=lambda name: name == "depth"):
        text = values[name]
        head, _, last = name.rpartition(".")
        if name == "depth":
            plain["model"] = at_depth(str(plain["model"]), text)
        elif head == "options":
            plain["options"] = plain["options"] | {last: text}
        else:
            inner = plain
            for part in filter(None, head.split(".")):
                inner = inner[part]
            inner[last] = parse_yaml(text, name)
    try:
        return build_settings(Recipe, plain)
    except ConfigError as error:
        place = ", ".join(f"{name}={text}" for name, text in values.items())
        raise ConfigError(f"the study has no run at {place}: {error}") from error


def at_depth(model: str, depth: str) -> str:
    """The name with that depth: ``cifar_resnet20`` at 56 is ``cifar_resnet56``.

    Raises ``ConfigError`` where the depth is no whole number, or the name has none.
    """
    require(depth.isdecimal(), "depth", depth, "a whole number")
    name, found = re.subn(r"(?<=[a-z_])\d+", depth, model, count=1)
    require(found == 1, "model", model, "a name with a depth, such as cifar_resnet20, where depth is an axis")
    return name


def folder_word(value: str) -> str:
    """The value as a part of a folder's name; one that is long or has odd letters ends in a checksum."""
    word = re.sub(r"[^A-Za-z0-9._+]+", "_", value)[:LONGEST]
    if word == value and word.strip("."):
        return word
    return f"{word}~{hashlib.sha256(value.encode()).hexdigest()[:8]}"


def read_ended(run: PlannedRun, out: Path) -> RunRecord:
    """The record of a run that has ended. Raises ``DataError`` where it is damaged, or that of another run."""
    path = run.folder(out) / RECORD
    try:
        record = read_record(RunRecord, path)
        # A setting that the record's version did not know had its default value.
        if changed_settings({"recipe": record.recipe}, {"recipe": as_plain(run.recipe)}):
            raise DataError(f"{path} is the record of another run")
    except DataError as error:
        raise DataError(f"{error}; delete the file, and the study makes it again from the run's checkpoint") from error
    return record

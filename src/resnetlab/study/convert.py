"""Studies of format 1, as resnetlab 0.1.0 wrote them, brought to format 2.

Format 1 had two kinds of study. One over axes had the settings of today, without ``format``. One over ``kinds`` and
``depths`` named plain nets by their model: ``cifar_plain20`` is ``cifar_resnet20`` with ``shortcut: none``.
"""

import os
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from resnetlab.core.config import read_yaml
from resnetlab.core.errors import DataError
from resnetlab.core.files import read_json, write_json
from resnetlab.core.serialize import as_plain, from_plain, write_record
from resnetlab.records.run import RunRecord, upgrade_recipe
from resnetlab.records.study import StudyRecord
from resnetlab.study.config import FAMILIES, Study, depth_axes, study_recipe, study_settings
from resnetlab.study.plan import RESULTS, STUDY, PlannedRun, folder_word, plan_runs
from resnetlab.study.results import make_record, study_run
from resnetlab.train.folder import RECIPE, RECORD
from resnetlab.train.recipe import Recipe, write_recipe

MOVED = ("options", "data", "split_seed", "decode", "training")
"""Settings of a study over kinds that are those of its recipe."""


def convert_settings(plain: dict[str, Any], origin: str) -> dict[str, Any]:
    """The settings of a study of format 1 in those of today; those of today as they are.

    Raises ``DataError`` naming ``origin`` where they are of neither format.
    """
    number = plain.get("format", 1)
    if number == 2:
        return plain
    if number != 1:
        raise DataError(f"{origin} has format {number!r}, this version reads 1 and 2; read it with a newer resnetlab")
    try:
        recipe = as_plain(study_recipe())
        if "axes" in plain:
            return {"format": 2, **plain, "recipe": recipe | upgrade_recipe(plain["recipe"])}
        moved = upgrade_recipe({name: plain[name] for name in MOVED if name in plain})
        recipe |= {"model": FAMILIES[plain["family"]]} | moved
        axes = as_plain(depth_axes(plain["kinds"], plain["depths"], plain["shortcut"]))
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{origin} is no study of format 1 ({error!r}); it was damaged or is not ours") from error
    return {"format": 2, "recipe": recipe, "axes": axes, "seeds": plain["seeds"]}


def convert_recipe(plain: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a run over kinds: a plain net is its residual counterpart without shortcuts."""
    if "plain" not in plain["model"] or plain["shortcut"] != "default":
        return plain
    return plain | {"model": plain["model"].replace("plain", "resnet"), "shortcut": "none"}


def convert_results(plain: Any, origin: str) -> StudyRecord:
    """The record of a study of either format; the statistics of format 1 are recomputed from its runs.

    Raises ``DataError`` naming ``origin`` where it is of neither format.
    """
    if not isinstance(plain, dict) or plain.get("format", 1) != 1:
        return from_plain(StudyRecord, plain, origin)
    try:
        settings = convert_settings(plain["settings"], origin)
        runs = {}
        for run in plain["runs"]:
            record, values = run["record"], run.get("values")
            if values is None:
                recipe = convert_recipe(record["recipe"])
                record = record | {"recipe": recipe, "model": recipe["model"]}
                shortcut = "none" if run["kind"] == "plain" else plain["settings"]["shortcut"]
                values = {"shortcut": shortcut, "depth": str(run["depth"])}
            runs[run["seed"], tuple(values.values())] = study_run(
                values, run["seed"], from_plain(RunRecord, record, origin)
            )
        places = product(sorted({seed for seed, _ in runs}), product(*settings["axes"].values()))
        ordered = [runs[place] for place in places if place in runs]
        return make_record(ordered, settings["axes"], plain["planned"], settings, plain["command"])
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{origin} is no study of format 1 ({error!r}); it was damaged or is not ours") from error


def as_study(plain: Any, origin: str) -> Study:
    """The study of settings in either format. Raises ``DataError`` naming ``origin`` for anything else."""
    if not plain or not isinstance(plain, dict):
        raise DataError(f"{origin} holds no settings of a study; it was damaged")
    settings = convert_settings(plain, origin)
    return from_plain(Study, {name: value for name, value in settings.items() if name != "format"}, origin)


def convert_folder(out: Path) -> None:
    """Bring the study in ``out`` to format 2 in place: its runs, which keep their checkpoints, then ``study.json``.

    Whoever calls this holds the folder. Where it was killed on its way, the next call does the rest.
    """
    plain = read_json(out / STUDY)
    study, over_kinds = as_study(plain, str(out / STUDY)), "axes" not in plain
    for run in plan_runs(study):
        folder = run.folder(out)
        before = folder.with_name(_former_name(run, over_kinds))
        if before.is_dir() and not folder.exists():
            os.replace(before, folder)
        # What is damaged is told where the run is read.
        with suppress(DataError):
            _convert_run(folder, over_kinds)
    with suppress(DataError):
        write_record(out / RESULTS, convert_results(read_json(out / RESULTS), str(out / RESULTS)))
    write_json(out / STUDY, study_settings(study))


def _former_name(run: PlannedRun, over_kinds: bool) -> str:
    if not over_kinds:
        return "-".join([*map(folder_word, run.values.values()), f"seed{run.seed}"])
    kind = "plain" if run.values["shortcut"] == "none" else "residual"
    return f"{kind}-{run.values['depth']}-seed{run.seed}"


def _convert_run(folder: Path, over_kinds: bool) -> None:
    recipe = _convert_recipe_of(read_yaml(folder / RECIPE), over_kinds, str(folder / RECIPE))
    write_recipe(folder / RECIPE, recipe)
    if (folder / RECORD).is_file():
        record = read_json(folder / RECORD)
        recipe = _convert_recipe_of(record["recipe"], over_kinds, str(folder / RECORD))
        write_json(folder / RECORD, record | {"recipe": as_plain(recipe), "model": recipe.model})


def _convert_recipe_of(plain: Any, over_kinds: bool, origin: str) -> Recipe:
    # A setting that 0.1.0 did not have is that of a study by default.
    full = as_plain(study_recipe()) | upgrade_recipe(plain)
    return from_plain(Recipe, convert_recipe(full) if over_kinds else full, origin)

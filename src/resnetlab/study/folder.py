"""The folder of a study: claimed, read as far as it has come, and brought to the format of today."""

from dataclasses import replace
from pathlib import Path

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.core.files import read_json, require_vacant
from resnetlab.core.lock import folder_lock
from resnetlab.records.study import StudyRecord
from resnetlab.study.config import Study, study_command, study_settings
from resnetlab.study.convert import as_study, convert_folder, convert_results
from resnetlab.study.plan import STUDY, plan_runs, read_ended
from resnetlab.study.results import make_record, study_run
from resnetlab.study.tuning import chosen_values, read_tuning
from resnetlab.train.folder import may_have_moved
from resnetlab.train.recipe import differences


def claim_folder(study: Study, out: Path) -> bool:
    """Whether ``out`` holds this study, with as many seeds or fewer; if not, it is vacant.

    Raises ``ConfigError`` if it holds anything else.
    """
    if not require_vacant(out, "study", STUDY):
        return False
    before = read_config(out)
    # More seeds only add runs; all else would mix two studies.
    more = replace(before, seeds=max(before.seeds, study.seeds))
    changed = differences(study_settings(before), study_settings(study)) if more != study else []
    if changed:
        raise ConfigError(
            f"{out} holds a study with other settings: {', '.join(changed)}; give the same settings or another folder"
        )
    return True


def moved_data(study: Study, out: Path) -> tuple[Study, str | None]:
    """The study as it began in ``out``, and where its data are now, where ``study`` names another path of the same
    kind; else the study as it is. That they are the same data, their SHA-256 decides."""
    if not (out / STUDY).is_file() or "data" in study.axes:
        return study, None
    before, now = read_config(out).recipe.data, study.recipe.data
    if not may_have_moved(before, now):
        return study, None
    return replace(study, recipe=replace(study.recipe, data=before)), now


def read_config(out: Path) -> Study:
    """The settings of the study in ``out``, in either format. Raises ``DataError`` where it holds none."""
    if not (out / STUDY).is_file():
        raise DataError(f"{out} holds no study (it has no {STUDY})")
    return as_study(read_json(out / STUDY), str(out / STUDY))


def open_study(out: str | Path) -> Study:
    """The same, with the folder brought to the format of today first, so that its runs are found.

    Raises ``ConfigError`` where another process still writes in a folder of format 1.
    """
    out = Path(out)
    study = read_config(out)
    if is_former(out):
        with folder_lock(out):
            convert_folder(out)
    return study


def is_former(out: Path) -> bool:
    """Whether ``out`` holds a study of format 1."""
    return (out / STUDY).is_file() and "format" not in read_json(out / STUDY)


def read_study(out: str | Path) -> StudyRecord:
    """The study in ``out`` as far as it has come, from its records alone.

    Raises ``DataError`` where the folder holds no study, it is still tuning, or none of its runs has ended.
    """
    out = Path(out)
    study = open_study(out)
    tuning = read_tuning(study, out)
    planned = plan_runs(study, chosen_values(tuning))
    runs = [study_run(run.values, run.seed, read_ended(run, out)) for run in planned if run.has_ended(out)]
    if not runs:
        raise DataError(f"no run of the study in {out} has ended yet; give the command of the study again")
    return make_record(runs, study.axes, len(planned), study_settings(study), study_command(study), tuning)


def read_results(path: str | Path) -> StudyRecord:
    """The study in a file such as ``results.json``, of either format. Raises ``DataError`` where it holds none."""
    return convert_results(read_json(Path(path)), str(path))

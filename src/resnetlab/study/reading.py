"""A study from its folder, as far as it has come: from its settings and the records of its runs alone."""

from pathlib import Path

from resnetlab.core.errors import DataError
from resnetlab.core.files import read_json
from resnetlab.core.serialize import from_plain
from resnetlab.records.study import Comparison, StudyRecord
from resnetlab.study.axes import AxesStudy, axes_command, axes_record, plan_axes
from resnetlab.study.grid import StudyConfig, grid_command, grid_record, plan_grid
from resnetlab.study.plan import STUDY, PlannedRun, read_ended

Study = StudyConfig | AxesStudy


def plan_runs(config: Study) -> list[PlannedRun]:
    """Every run of the study, seed by seed. Raises ``ConfigError`` for values that make no run."""
    return plan_grid(config) if isinstance(config, StudyConfig) else plan_axes(config)


def study_command(config: Study) -> str:
    """The command that makes this study, with every setting that is not the default."""
    return grid_command(config) if isinstance(config, StudyConfig) else axes_command(config)


def read_study(out: Path) -> StudyRecord | Comparison:
    """The study in ``out`` as far as it has come, from its records alone.

    Raises ``DataError`` where the folder holds no study, or none of its runs has ended.
    """
    config = read_config(out)
    planned = plan_runs(config)
    ended = [(run, read_ended(run, out)) for run in planned if run.has_ended(out)]
    if not ended:
        raise DataError(f"no run of the study in {out} has ended yet; run it again to go on")
    if isinstance(config, StudyConfig):
        return grid_record(config, len(planned), ended)
    return axes_record(config, len(planned), ended)


def read_config(out: Path) -> Study:
    """The settings of the study in ``out``. Raises ``DataError`` where it holds none."""
    if not (out / STUDY).is_file():
        raise DataError(f"{out} holds no study (it has no {STUDY})")
    plain = read_json(out / STUDY)
    if not plain:
        raise DataError(f"{out / STUDY} is empty; it was damaged")
    if isinstance(plain, dict) and "axes" in plain:
        return from_plain(AxesStudy, plain, str(out / STUDY))
    return from_plain(StudyConfig, plain, str(out / STUDY))

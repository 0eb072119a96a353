"""Studies: many runs that differ in what is asked, paired by seed, with statistics.

``StudyConfig`` is the grid of kinds × depths, with a verdict on degradation; ``AxesStudy`` compares the values of any
settings. A study folder holds ``study.json`` (its settings), ``runs/<run>/`` (each an ordinary run folder),
``results.json`` and the page. Each run is recorded when it ends; a study that was interrupted goes on where it stood.
"""

from resnetlab.study.axes import AxesStudy
from resnetlab.study.grid import StudyConfig
from resnetlab.study.plan import RESULTS, RUNS, STUDY, NoStudyCallback, PlannedRun, StudyCallback
from resnetlab.study.reading import Study, plan_runs, read_config, read_study, study_command
from resnetlab.study.runner import run_study

__all__ = [
    "RESULTS",
    "RUNS",
    "STUDY",
    "AxesStudy",
    "NoStudyCallback",
    "PlannedRun",
    "Study",
    "StudyCallback",
    "StudyConfig",
    "plan_runs",
    "read_config",
    "read_study",
    "run_study",
    "study_command",
]

"""Studies: a recipe, axes and seeds; runs that are paired by seed, with statistics over the seeds."""

from resnetlab.study.config import Study, study_command
from resnetlab.study.folder import open_study, read_results, read_study
from resnetlab.study.plan import RESULTS, RUNS, STUDY, NoStudyCallback, PlannedRun, StudyCallback, plan_runs
from resnetlab.study.runner import run_study

__all__ = [
    "RESULTS",
    "RUNS",
    "STUDY",
    "NoStudyCallback",
    "PlannedRun",
    "Study",
    "StudyCallback",
    "open_study",
    "plan_runs",
    "read_results",
    "read_study",
    "run_study",
    "study_command",
]

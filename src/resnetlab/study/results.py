"""The record of a study, from the records of its runs: what ``results.json`` holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnetlab.records import gradients
from resnetlab.records.run import RunRecord
from resnetlab.records.study import StudyRecord, StudyRun, Tuning
from resnetlab.study import degradation, outcomes, statistics


def study_run(values: dict[str, str], seed: int, record: RunRecord) -> StudyRun:
    """The run at its place in the study, with the verdicts on its gradients."""
    return StudyRun(
        values=values,
        seed=seed,
        flow_start=gradients.judge(record.gradients_start),
        flow_end=gradients.judge(record.gradients_end),
        record=record,
    )


def make_record(
    runs: Sequence[StudyRun],
    axes: Mapping[str, Sequence[str]],
    planned: int,
    settings: dict[str, Any],
    command: str,
    tuning: Tuning | None = None,
) -> StudyRecord:
    """The study with its statistics over seeds, and the verdicts on degradation where it asks about that."""
    verdicts = degradation.make_verdicts(runs, axes)
    return StudyRecord(
        settings=settings,
        command=command,
        axes={name: list(values) for name, values in axes.items()},
        rules={
            "trained": outcomes.RULE,
            "contrasts": statistics.RULE,
            **({"degradation": degradation.RULE} if verdicts else {}),
            "gradients": gradients.RULE,
        },
        planned=planned,
        runs=list(runs),
        conditions=statistics.make_conditions(runs),
        contrasts=statistics.make_contrasts(runs, axes),
        verdicts=verdicts,
        trained_below=outcomes.Outcomes(runs).below,
        tuning=tuning,
    )

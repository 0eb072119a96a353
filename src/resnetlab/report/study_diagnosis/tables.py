"""The diagnosis of a study as rows of text, for the terminal and for the page alike."""

from resnetlab.core.stats import Sample
from resnetlab.records.diagnosis import Analysis
from resnetlab.records.study import Difference
from resnetlab.records.study_diagnosis import ConditionResult, Measure, StudyDiagnosis
from resnetlab.report.study.tables import judgement
from resnetlab.report.table import Table, interval, p_value, plain

DIGITS = {1: 3, 100: 2}
"""Decimals of a number, and of a percentage."""


CAPTIONS: dict[Analysis, str] = {
    "gradients": "Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude",
    "residuals": "What the blocks of the trained networks add",
    "lesion": "{split} error of the trained networks, and its rise in points when blocks are left out or exchanged",
}


def measure_tables(diagnosis: StudyDiagnosis) -> list[Table]:
    """For each analysis its measures in every condition; n stands beside a measure that not all of its runs have."""
    tables = []
    for analysis in dict.fromkeys(measure.analysis for measure in diagnosis.measures):
        ours = [measure for measure in diagnosis.measures if measure.analysis == analysis]
        subject = CAPTIONS[analysis].format(split=diagnosis.split.capitalize())
        tables.append(
            Table(
                caption=f"{subject}: mean ± standard deviation over n seeds",
                heads=(*diagnosis.axes, "n", *(measure.words for measure in ours)),
                rows=[
                    (
                        *condition.values.values(),
                        str(condition.n),
                        *(over_seeds(condition.measures[measure.name], measure, condition.n) for measure in ours),
                    )
                    for condition in diagnosis.conditions
                ],
            )
        )
    return tables


def verdict_table(diagnosis: StudyDiagnosis) -> Table:
    """How many runs of every condition have which verdict."""
    analyses = list(dict.fromkeys(name for condition in diagnosis.conditions for name in condition.verdicts))
    return Table(
        caption="Verdicts on the trained networks, with the number of runs",
        heads=(*diagnosis.axes, *analyses),
        rows=[
            (*condition.values.values(), *(_counts(condition, name) for name in analyses))
            for condition in diagnosis.conditions
        ],
    )


def difference_tables(diagnosis: StudyDiagnosis) -> list[Table]:
    """For each axis that was compared: every measure of every value minus that of the first, paired by seed."""
    tables = []
    for axis, values in diagnosis.axes.items():
        ours = [contrast for contrast in diagnosis.contrasts if contrast.axis == axis]
        others = [name for name in diagnosis.axes if name != axis]
        rows = [
            (measure.words, *contrast.others.values(), contrast.value, *difference(found, measure))
            for measure in diagnosis.measures
            for contrast in ours
            for found in [contrast.differences[measure.name]]
        ]
        if rows:
            caption = (
                f"{axis}: minus {values[0]}, paired over n seeds: mean [Student's 95 %], p of t-test by Holm's rule "
                f"over {len(diagnosis.contrasts)}"
            )
            heads = ("measure", *others, axis, "n", "difference", "p", "")
            tables.append(Table(caption=caption, heads=heads, rows=rows))
    return tables


def over_seeds(values: Sample | None, measure: Measure, runs: int) -> str:
    """``mean ± standard deviation``, and n where it is not that of all ``runs``."""
    if values is None:
        return "–"
    digits = DIGITS[round(measure.factor)]
    std = "" if values.sd is None else f" ± {plain(measure.factor * values.sd, digits)}"
    return plain(measure.factor * values.mean, digits) + std + ("" if values.n == runs else f" (n = {values.n})")


def difference(found: Difference | None, measure: Measure) -> tuple[str, str, str, str]:
    """n, ``mean [low, high]``, p, and whether that is significant."""
    if found is None:
        return "0", "no seed has both", "–", ""
    text = interval(found.student, measure.factor, DIGITS[round(measure.factor)])
    p = "–" if found.adjusted is None else p_value(found.adjusted)
    return str(found.student.n), text, p, judgement(found)


def _counts(condition: ConditionResult, analysis: str) -> str:
    return ", ".join(f"{verdict} {count}" for verdict, count in condition.verdicts.get(analysis, {}).items()) or "–"


def answer_lines(diagnosis: StudyDiagnosis) -> list[str]:
    """What the networks of every condition are like, in a sentence each."""
    return [
        f"{_place(condition)}: {'; '.join(_words(condition, diagnosis.measures))}."
        for condition in diagnosis.conditions
    ]


def _words(condition: ConditionResult, measures: list[Measure]) -> list[str]:
    told = {"response": "responses {}", "typical": "without one block the error rises by {} points in the median"}
    found = []
    for measure in measures:
        values = condition.measures[measure.name]
        if measure.name in told and values:
            found.append(told[measure.name].format(over_seeds(values, measure, condition.n)))
    for analysis in ("gradients", "lesion"):
        if analysis in condition.verdicts:
            found.append(f"{analysis}: {_counts(condition, analysis)}")
    return [*found, f"n = {condition.n}"]


def _place(condition: ConditionResult) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in condition.values.items())

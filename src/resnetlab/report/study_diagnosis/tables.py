"""The diagnosis of a study as rows of text, for the terminal and for the page alike."""

from resnetlab.core.stats import Sample
from resnetlab.records.diagnosis import Part
from resnetlab.records.study import Difference
from resnetlab.records.study_diagnosis import CombinationReading, Measure, StudyDiagnosis
from resnetlab.report.table import Table, interval, plain

DIGITS = {1: 3, 100: 2}
"""Decimals of a number, and of a percentage."""


CAPTIONS: dict[Part, str] = {
    "gradients": "Growth of ‖∇W‖/‖W‖ from the last block to the first, in orders of magnitude",
    "residuals": "What the blocks of the trained networks add",
    "lesion": "Test error of the trained networks, and its rise in points when blocks are left out or exchanged",
}


def measure_tables(diagnosis: StudyDiagnosis) -> list[Table]:
    """For each part its measures in every combination; n stands beside a measure that not all of its runs have."""
    tables = []
    for part in dict.fromkeys(measure.part for measure in diagnosis.measures):
        ours = [measure for measure in diagnosis.measures if measure.part == part]
        tables.append(
            Table(
                caption=f"{CAPTIONS[part]}: mean ± standard deviation over the seeds",
                heads=(*diagnosis.axes, "n", *(measure.words for measure in ours)),
                rows=[
                    (
                        *cell.values.values(),
                        str(cell.n),
                        *(over_seeds(cell.measures[measure.name], measure, cell.n) for measure in ours),
                    )
                    for cell in diagnosis.combinations
                ],
            )
        )
    return tables


def verdict_table(diagnosis: StudyDiagnosis) -> Table:
    """How many runs of every combination have which verdict."""
    parts = list(dict.fromkeys(part for cell in diagnosis.combinations for part in cell.verdicts))
    return Table(
        caption="Verdicts on the trained networks, with the number of runs",
        heads=(*diagnosis.axes, *parts),
        rows=[(*cell.values.values(), *(_counts(cell, part) for part in parts)) for cell in diagnosis.combinations],
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
            caption = f"{axis}: minus {values[0]}, paired by seed: mean [95 % interval], p by Holm's rule"
            heads = ("measure", *others, axis, "n", "difference", "p", "")
            tables.append(Table(caption=caption, heads=heads, rows=rows))
    return tables


def over_seeds(values: Sample | None, measure: Measure, runs: int) -> str:
    """``mean ± standard deviation``, and n where it is not that of all ``runs``."""
    if values is None:
        return "–"
    digits = DIGITS[round(measure.factor)]
    spread = "" if values.sd is None else f" ± {plain(measure.factor * values.sd, digits)}"
    return plain(measure.factor * values.mean, digits) + spread + ("" if values.n == runs else f" (n = {values.n})")


def difference(found: Difference | None, measure: Measure) -> tuple[str, str, str, str]:
    """n, ``mean [low, high]``, p, and whether that is significant."""
    if found is None:
        return "0", "no seed has both", "–", ""
    text = interval(found.student, measure.factor, DIGITS[round(measure.factor)])
    if found.adjusted is None:
        return str(found.student.n), text, "–", "not tested"
    p = "< 0.001" if found.adjusted < 0.001 else f"{found.adjusted:.3f}"
    return str(found.student.n), text, p, "significant" if found.significant else "not significant"


def _counts(cell: CombinationReading, part: str) -> str:
    return ", ".join(f"{verdict} {count}" for verdict, count in cell.verdicts.get(part, {}).items()) or "–"


def answer_lines(diagnosis: StudyDiagnosis) -> list[str]:
    """What the networks of every combination are like, in a sentence each."""
    return [f"{_place(cell)}: {'; '.join(_words(cell, diagnosis.measures))}." for cell in diagnosis.combinations]


def _words(cell: CombinationReading, measures: list[Measure]) -> list[str]:
    told = {"response": "responses {}", "typical": "without one block the error rises by {} points in the median"}
    found = []
    for measure in measures:
        values = cell.measures[measure.name]
        if measure.name in told and values:
            found.append(told[measure.name].format(over_seeds(values, measure, cell.n)))
    for part in ("gradients", "lesion"):
        if part in cell.verdicts:
            found.append(f"{part}: {_counts(cell, part)}")
    return [*found, f"n = {cell.n}"]


def _place(cell: CombinationReading) -> str:
    return ", ".join(f"{axis} {value}" for axis, value in cell.values.items())

"""docs/study.md says what the records beside it say; no number in its tables is typed by hand."""

import pytest

from resnetlab.records import StudyRecord, read_record
from resnetlab.report.figures import draw_figures
from resnetlab.report.study_diagnosis_figures import draw_study_diagnosis
from resnetlab.report.study_diagnosis_tables import difference_tables, measure_tables
from resnetlab.report.tables import Table, error_table, gradient_table, pair_table, trace_table, verdict_lines
from resnetlab.study_readings import StudyDiagnosis
from tests.conftest import ROOT

RECORDS = ROOT / "docs" / "study"
STUDIES = ("digits", "fashion-mnist")


def story() -> str:
    return (ROOT / "docs" / "study.md").read_text()


def study(name: str) -> StudyRecord:
    return read_record(StudyRecord, RECORDS / f"{name}.json")


def read(name: str) -> StudyDiagnosis:
    return read_record(StudyDiagnosis, RECORDS / f"{name}-read.json")


def rows_of(table: Table) -> list[str]:
    """The table in Markdown."""
    lines = [table.heads, ("---",) * len(table.heads), *table.rows]
    return [f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("|--- |", "|---|") for line in lines]


@pytest.mark.parametrize("name", STUDIES)
def test_tables_of_a_study_are_drawn_from_its_record(name):
    found = study(name)
    for table in (error_table(found), pair_table(found), gradient_table(found)):
        assert "\n".join(rows_of(table)) in story()
    for line in verdict_lines(found):
        assert line in story()
    assert len({run.seed for run in found.runs}) >= 3
    assert {8, 110} <= {run.depth for run in found.runs}


def test_trace_is_drawn_from_its_record():
    assert "\n".join(rows_of(trace_table(study("digits")))) in story()


@pytest.mark.parametrize("name", STUDIES)
def test_tables_of_a_diagnosis_are_drawn_from_its_record(name):
    found = read(name)
    _, residuals, lesions = measure_tables(found)
    for table in (residuals, lesions):
        assert "\n".join(rows_of(table)) in story()
    (differences,) = difference_tables(found)
    told = [row for row in differences.rows if row[0] in ("responses", "one left out, median")]
    assert told
    for row in told:
        assert f"| {' | '.join(row)} |" in story()


@pytest.mark.parametrize("name", STUDIES)
def test_commands_are_those_of_the_records(name):
    command = study(name).command.replace("--out STUDY", f"--out runs/{name}")
    assert command in story()
    assert read(name).study == study(name).command


@pytest.mark.parametrize("name", STUDIES)
def test_pictures_are_drawn_from_the_records(name):
    drawn = {"training-error": draw_figures(study(name)), "lesion": draw_study_diagnosis(read(name))}
    for wanted, drawings in drawn.items():
        picture = next(drawing.png for drawing in drawings if drawing.name == wanted)
        assert picture == (RECORDS / f"{name}-{wanted}.png").read_bytes()
        assert f"study/{name}-{wanted}.png" in story()

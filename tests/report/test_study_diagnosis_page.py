import re

import pytest

from resnetlab.core.serialize import read_record, write_record
from resnetlab.records.study_diagnosis import StudyDiagnosis
from resnetlab.report.run.figures import PALETTE
from resnetlab.report.study.diagnosis import (
    difference_tables,
    draw_study_diagnosis,
    measure_tables,
    render_study_diagnosis,
    write_study_diagnosis_report,
)
from tests.made import HOSTILE, study_diagnosis
from tests.report.conftest import vectors_alone
from tests.report.test_study_page import Elements


def page_of(source: str = "made") -> str:
    found = study_diagnosis(source)
    with vectors_alone():
        return render_study_diagnosis(found, draw_study_diagnosis(found))


@pytest.fixture(scope="module")
def page() -> str:
    return page_of()


def test_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "record.json", study_diagnosis())
    assert read_record(StudyDiagnosis, tmp_path / "record.json") == study_diagnosis()


def test_page_has_every_number_rule_and_command(page):
    found = study_diagnosis()
    text = Elements(page).text
    for table in (*measure_tables(found), *difference_tables(found)):
        assert all(cell in text for row in table.rows for cell in row)
    assert all(line in text for line in (*found.rules, *found.left_out, found.command, found.study))
    assert len(re.findall(r'role="img" aria-label="[^"]{20,}"', page)) == 3


def test_page_runs_no_script_and_fetches_nothing(page):
    elements = Elements(page)
    assert elements.fetched == []
    assert "script" not in elements.tags
    assert not re.search(r"url\((?!#)|@import| on\w+=", page)


def test_drawings_follow_the_page_into_the_dark(page):
    drawings = "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))
    assert not [name for name, colour in PALETTE.items() if colour in drawings]
    assert set(re.findall(r"var\((--\w+)\)", page)) <= set(re.findall(r"(--\w+):", page))


@pytest.mark.parametrize("name", [HOSTILE, "$\\frac{$", "a" * 300])
def test_names_from_outside_add_no_element_of_the_template(page, name):
    found = study_diagnosis(name)
    hostile = render_study_diagnosis(found, draw_study_diagnosis(found))
    # Within a drawing a name is as many glyphs as it has letters.
    tags, expected = (Elements(re.sub("<svg.*?</svg>", "", html, flags=re.DOTALL)).tags for html in (hostile, page))
    assert tags == expected
    assert "script" not in Elements(hostile).tags


def test_values_are_shown_in_points_with_their_spread():
    lesion = measure_tables(study_diagnosis())[2]
    assert lesion.heads[-4:] == (
        "error, %",
        "one left out, median",
        "one left out, worst",
        "two exchanged, median",
    )
    assert lesion.rows[0] == ("plain", "20", "3", "10.00 ± 0.00", "70.50 ± 0.50", "71.00 ± 1.00", "10.00 ± 0.00")
    (differences,) = difference_tables(study_diagnosis())
    row = next(row for row in differences.rows if row[0] == "one left out, median")
    assert row[:4] == ("one left out, median", "20", "residual", "3")
    assert row[4] == "-68.00 in every seed"


def test_page_and_figures_are_equal_when_drawn_again(tmp_path):
    for name in ("one", "two"):
        write_study_diagnosis_report(study_diagnosis(), tmp_path / name)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert len(files) == 7
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in files)

import re
from dataclasses import replace

import pytest

from resnetlab.core.serialize import write_record
from resnetlab.records.diagnosis import ANALYSES, read_diagnosis
from resnetlab.report.diagnosis.lesion import tables as lesion_tables
from resnetlab.report.diagnosis.page import draw_diagnosis, render_diagnosis_page, report_of, write_diagnosis_report
from resnetlab.report.run.figures import PALETTE
from resnetlab.report.table import Table, thinned
from tests.made import HOSTILE, diagnosis, lesion_result
from tests.report.conftest import vectors_alone
from tests.report.test_study_page import Elements


def page_of(source: str = "made") -> str:
    found = diagnosis(source)
    with vectors_alone():
        return render_diagnosis_page(found, draw_diagnosis(found))


@pytest.fixture(scope="module")
def page() -> str:
    return page_of()


def test_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "diagnosis.json", diagnosis())
    assert read_diagnosis(tmp_path / "diagnosis.json") == diagnosis()


def test_page_runs_no_script_and_fetches_nothing(page):
    elements = Elements(page)
    assert [source[:22] for source in elements.fetched] == ["data:image/png;base64,"] * 2
    assert "img-src data:" in page
    assert "default-src 'none'" in page
    assert "script" not in elements.tags
    assert not re.search(r"url\((?!#)|@import| on\w+=", page)
    assert len(elements.ids) == len(set(elements.ids))
    targets = re.findall(r'<a href="#([^"]+)"', page)
    assert len(targets) == 12
    assert set(targets) <= set(elements.ids)


def test_every_analysis_has_a_figure_with_words_numbers_and_its_rule(page):
    assert len(re.findall(r'role="img" aria-label="[^"]{20,}"', page)) == 11
    assert len(re.findall(r'<img [^>]+ alt="(?:This net|Plain): image 0, made, predicted as made', page)) == 2
    text = Elements(page).text
    for finding in diagnosis().findings:
        assert finding.rule in text
        for line in (*finding.sentences, *finding.advice):
            assert line in text
    for name in ANALYSES:
        for table in report_of(name).tables(diagnosis()):
            assert all(cell in text for row in table.rows for cell in row)
    assert "resnetlab diagnose made" in text


def test_drawings_follow_the_page_into_the_dark(page):
    drawings = "".join(re.findall("<svg.*?</svg>", page, re.DOTALL))
    assert not [name for name, colour in PALETTE.items() if colour in drawings]
    assert set(re.findall(r"var\((--\w+)\)", page)) <= set(re.findall(r"(--\w+):", page))


def test_hostile_names_add_no_element(page):
    hostile = page_of(HOSTILE)
    assert Elements(hostile).tags == Elements(page).tags
    assert HOSTILE not in hostile
    assert HOSTILE in Elements(hostile).text


def test_name_that_looks_like_a_formula_is_drawn_as_it_is():
    found = diagnosis("$\\frac{$")
    assert "$\\frac{$" in Elements(render_diagnosis_page(found, draw_diagnosis(found))).text


def test_hostile_name_would_be_seen_where_it_is_not_escaped(monkeypatch):
    """The control of the test above."""
    from markupsafe import Markup

    monkeypatch.setattr("resnetlab.report.diagnosis.page.diagnosis_title", lambda _: Markup(HOSTILE))
    assert "script" in Elements(page_of(HOSTILE)).tags


def test_page_is_equal_when_drawn_again(tmp_path):
    for name in ("one", "two"):
        write_diagnosis_report(diagnosis(), tmp_path / name)
    assert (tmp_path / "one/report.html").read_bytes() == (tmp_path / "two/report.html").read_bytes()


def test_long_table_keeps_its_ends_and_says_so():
    table = thinned(Table(caption="c", heads=("n",), rows=[(str(n),) for n in range(100)]), 12)
    assert (len(table.rows), table.rows[0], table.rows[-1]) == (12, ("0",), ("99",))
    assert table.caption == "c (12 of 100 rows)"


def test_single_blocks_have_their_cost():
    found = diagnosis()
    net = replace(found.net, lesion=lesion_result(0.3))
    _, single = lesion_tables(replace(found, net=net))
    assert single.rows == [("stages.0.0", "30.00", "+20.00", "–")]
    tables = lesion_tables(replace(found, net=net, split="validation"))
    assert all("50 validation images" in table.caption for table in tables)


def test_page_names_what_was_measured_on_the_batch_and_nothing_else():
    whole = diagnosis()
    said = f"Measured on one batch of {whole.batch} training images: Gradients by depth; What the blocks add; "
    said += "Signal before training; Gradients of neighbours; Rank of the representation; One step of the optimizer; "
    assert f"{said}Length of paths." in Elements(page_of()).text
    for name, shown in (("gradients", f"{whole.batch} training images: Gradients by depth."), ("lesion", "")):
        one = replace(whole, findings=[finding for finding in whole.findings if finding.analysis == name])
        text = Elements(render_diagnosis_page(one, draw_diagnosis(one))).text
        assert shown in text
        assert ("on one batch" in text) is bool(shown)

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from resnetlab.records.gradients import Flow, GradientMoment
from resnetlab.report.figure import draw_figures
from resnetlab.report.page import flatten, inline_svg
from resnetlab.report.study.page import render_page, write_report
from resnetlab.report.table import (
    error_table,
    gradient_table,
    growth,
    pair_table,
    study_heading,
    trace_table,
    verdict_lines,
)
from tests.made import HOSTILE, study, study_run


class Elements(HTMLParser):
    """Counts the elements of a page, keeps its ids, and what it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset") and not value.startswith("#"):
                self.fetched.append(value)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(study(), draw_figures(study()))


def test_page_fetches_nothing_and_forbids_it(page):
    elements = Elements(page)
    assert elements.fetched == []
    assert "default-src 'none'" in page
    assert "script" not in elements.tags
    assert not re.search(r"url\((?!#)|@import", page)


def test_page_ids_are_distinct_and_every_reference_has_its_target(page):
    ids = Elements(page).ids
    assert len(ids) == len(set(ids)) > 0
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page)
    assert references
    assert {one or other for one, other in references} <= set(ids)


def test_page_shows_tables_verdicts_settings_and_environment(page):
    text = Elements(page).text
    for table in (error_table(study()), pair_table(study()), gradient_table(study())):
        for row in table.rows:
            assert all(cell in text for cell in row)
    for line in verdict_lines(study()):
        assert line in text
    assert "training.epochs" in text
    assert "resnetlab study --data made" in text


def test_page_figures_have_words_for_those_who_do_not_see_them(page):
    assert len(re.findall(r'role="img" aria-label="[^"]{30,}"', page)) == 3


def test_hostile_names_add_no_element():
    harmless, hostile = (render_page(study(source), draw_figures(study(source))) for source in ("made", HOSTILE))
    assert Elements(hostile).tags == Elements(harmless).tags
    assert HOSTILE not in hostile
    assert HOSTILE in Elements(hostile).text


def test_heading_states_the_answer(page):
    record = study()
    heading = "Training error grows with depth in plain nets, does not grow with depth in residual nets"
    assert study_heading(record) == heading
    assert f"<h1>{heading}</h1>" in page
    both = replace(record, verdicts=[replace(verdict, answer="undecided") for verdict in record.verdicts])
    assert study_heading(both) == "Training error may grow with depth in plain and residual nets: undecided"
    assert study_heading(replace(record, verdicts=[])) == "Not answered yet"


def test_page_says_when_the_study_is_not_complete(page):
    assert "Not complete" not in page
    assert "12 of 18 runs have ended" in render_page(study(planned=18), draw_figures(study()))


def test_report_is_equal_when_drawn_again(tmp_path):
    for name in ("one", "two"):
        write_report(study(), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_one_seed_one_depth_one_kind_and_diverged_runs_can_be_drawn():
    for runs in (
        [study_run("plain", 8, 0, 0.5)],
        [study_run("plain", 8, 0, None), study_run("plain", 20, 0, 0.1)],
        [study_run("residual", 8, 0, None)],
    ):
        record = made_of(runs)
        cells = [cell for row in error_table(record).rows for cell in row]
        diverged = any(run.record.status == "diverged" for run in runs)
        assert any("diverged" in cell for cell in cells) == diverged
        text = Elements(render_page(record, draw_figures(record))).text
        assert all(cell in text for cell in cells)


def made_of(runs):
    from resnetlab.study import degradation

    return replace(
        study(),
        runs=runs,
        cells=degradation.make_cells(runs),
        pairs=degradation.make_pairs(runs),
        verdicts=degradation.make_verdicts(runs),
    )


def test_inline_svg_has_no_prologue():
    drawing = draw_figures(study())[0]
    assert inline_svg(drawing.name, drawing.svg).startswith('<svg aria-hidden="true"')
    assert drawing.png.startswith(b"\x89PNG")


def test_learning_curves_show_every_run_whole():
    """A limit set too early once cut the first epochs off."""
    from resnetlab.report.figure import draw_learning_curves

    assert [axes.get_title() for axes in draw_learning_curves(study()).axes] == ["depth 8", "depth 56"]
    axes = draw_learning_curves(study()).axes[0]
    assert len(axes.lines) == 12
    assert axes.get_ylim()[1] >= 90
    assert axes.get_ylim()[0] == 0


def test_tables_print_spread_and_significance():
    assert error_table(study()).rows[2] == ("56", "plain", "3", "61.00 ± 1.00", "30.50 ± 0.50", "0.6100 ± 0.0100")
    # With the same difference in every seed there is no star.
    assert pair_table(study()).rows[1][2] == "+60.00 [+60.00, +60.00]"
    assert gradient_table(study()).rows[0][3] == "+0.9 healthy"


def test_growth_of_an_even_number_of_runs_is_their_median():
    flows = [Flow(growth=value, verdict="healthy") for value in (0.0, 4.0)]
    assert growth([*flows, Flow(growth=None, verdict="broken")]) == "+2.0 healthy, broken"


def test_flatten_names_nested_settings():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": "1", "a.c": "–", "d": "1, 2"}


def test_trace_is_the_median_over_the_seeds_by_step():
    moments = {0: [1.0, 2.0, 9.0], 1: [0.5, None, 0.1], 4: [None, None, None]}
    made = study()
    runs = [
        replace(
            run,
            record=replace(
                run.record,
                gradient_trace=[
                    GradientMoment(step=step, first=1.0, last=1.0, growth=growths[run.seed])
                    for step, growths in moments.items()
                ],
            ),
        )
        for run in made.runs
        if (run.kind, run.depth) == ("plain", 56)
    ]
    table = trace_table(replace(made, runs=runs))
    assert table.heads == ("depth", "kind", "n", "0", "1", "4")
    assert table.rows == [("56", "plain", "3", "+2.0", "+0.3", "–")]
    assert trace_table(made).rows == []

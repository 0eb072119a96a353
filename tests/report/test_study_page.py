import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product

import pytest

from resnetlab.cli.tables import print_study
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.gradients import Flow, GradientMoment
from resnetlab.records.study import StudyRecord
from resnetlab.report.figure import Drawing
from resnetlab.report.page import flatten, inline_svg
from resnetlab.report.study.figures import draw_figures, draw_learning_curves, draw_training_error
from resnetlab.report.study.page import render_page, write_report
from resnetlab.report.study.tables import (
    answer_lines,
    contrast_tables,
    error_table,
    gradient_table,
    growth,
    heading,
    size_table,
    trace_table,
    trace_tables,
)
from resnetlab.report.table import p_value
from tests.made import HOSTILE, axis_study, depth_study, study_of
from tests.report.conftest import vectors_alone


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


def vector_figures(study: StudyRecord) -> list[Drawing]:
    with vectors_alone():
        return draw_figures(study)


def page_of(study: StudyRecord) -> str:
    return render_page(study, vector_figures(study))


@pytest.fixture(scope="module", params=[depth_study, axis_study])
def made(request) -> tuple[StudyRecord, str]:
    """A study of each kind of question, and its page."""
    return request.param(), page_of(request.param())


def test_page_fetches_nothing_and_forbids_it(made):
    elements = Elements(made[1])
    assert elements.fetched == ["explore.html"], "a link to the page beside it, which is no request"
    assert "default-src 'none'" in made[1]
    assert "script" not in elements.tags
    assert not re.search(r"url\((?!#)|@import", made[1])


def test_page_ids_are_distinct_and_every_reference_has_its_target(made):
    ids = Elements(made[1]).ids
    assert len(ids) == len(set(ids)) > 0
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', made[1])
    assert references
    assert {one or other for one, other in references} <= set(ids)


def test_page_shows_tables_answers_rules_settings_and_command(made):
    study, page = made
    text = Elements(page).text
    for table in (error_table(study), *contrast_tables(study), gradient_table(study), size_table(study)):
        assert all(cell in text for row in table.rows for cell in row)
    assert f"<h1>{heading(study)}</h1>" in page
    for line in (*answer_lines(study), *study.rules.values(), study.command, "training.epochs"):
        assert line in text


def test_page_figures_have_words_for_those_who_do_not_see_them(made):
    assert len(re.findall(r'role="img" aria-label="[^"]{30,}"', made[1])) == len(vector_figures(made[0]))


@pytest.mark.parametrize("make", [depth_study, axis_study])
def test_hostile_names_add_no_element(make):
    named, harmless = (vector_figures(study) for study in (make(HOSTILE), make()))
    hostile = render_page(make(HOSTILE), named)
    assert Elements(hostile).tags == Elements(render_page(make(), harmless)).tags
    assert HOSTILE not in hostile
    assert HOSTILE in Elements(hostile).text
    # In the figures of a study of depth no name from outside stands.
    assert (named == harmless) == (make is depth_study)


@pytest.mark.parametrize("name", [HOSTILE, "$x$ \\ _", "nul \x00 \x1b", "x" * 400, "日本語"])
def test_figures_with_strange_names_are_drawn_as_images_too(name):
    assert all(drawing.png for drawing in draw_figures(axis_study(name)))


def test_heading_and_answers_of_a_study_of_depth_are_the_verdicts():
    study = depth_study()
    assert heading(study) == (
        "Training error grows with depth in plain nets, does not grow with depth in residual nets, "
        "as far as 3 seeds tell"
    )
    assert [line.partition(": ")[0] for line in answer_lines(study)] == ["plain nets", "residual nets"]
    both = replace(study, verdicts=[replace(verdict, answer="undecided") for verdict in study.verdicts])
    assert heading(both) == "Training error may grow with depth in plain nets and residual nets: undecided"


def test_heading_and_answers_of_other_studies_count_differences():
    study = axis_study()
    assert heading(study) == "Significant differences in test error: 1 of 3"
    assert answer_lines(study) == [
        "Lowest mean test error: 5.83 ± 0.76 %, n = 3, with axis made far",
        "axis made: significant differences in test error from made: 1 of 3",
    ]
    assert heading(replace(study, contrasts=study.contrasts[:1])).endswith(": none of 1")
    assert heading(replace(study, contrasts=[])) == "No difference in test error could be tested"


def test_errors_stand_by_depth_with_the_plain_net_above_its_counterpart():
    table = error_table(depth_study())
    assert table.heads[:3] == ("depth", "kind", "n")
    assert [row[:2] for row in table.rows] == [(depth, kind) for depth in ("8", "56") for kind in ("plain", "residual")]
    assert table.rows[2] == (
        *("56", "plain", "3", "0 of 3 [0, 71] %"),
        *("61.60 ± 1.60", "30.80 ± 0.80", "0.6160 ± 0.0160"),
    )
    assert "mean ± standard deviation over n seeds; trained: below 10.00 % training error" in table.caption
    assert gradient_table(depth_study()).rows[0][3] == "+0.9 healthy"
    assert error_table(axis_study()).rows[-1][1:4] == ("0 (3 diverged)", "0 of 3 [0, 71] %", "diverged")


def test_contrasts_are_plain_minus_residual_and_say_what_was_not_tested():
    (table,) = contrast_tables(depth_study())
    assert table.caption.startswith("kind: plain minus residual, paired over n seeds")
    assert table.heads == ("quantity", "depth", "kind", "n", "difference", "bootstrap", "p", "")
    for told in ("paired over n seeds", "Student's 95 %", "BCa 95 %", "t-test or McNemar by Holm's rule over 2"):
        assert told in table.caption
    assert table.rows[1] == (
        *("runs that trained", "56", "plain", "3", "-3 (0 only here, 3 only there)"),
        *("–", "0.500", "too few seeds to tell"),
    )
    (same,) = contrast_tables(study_of(("x",), {("a",): [0.1, 0.11, 0.12], ("b",): [0.7, 0.71, 0.72]}))
    assert same.rows[1] == (
        *("training error, points", "b", "3", "+60.00 in every seed"),
        *("–", "–", "not significant: sign test p 0.250"),
    )


def test_contrasts_give_n_p_and_say_what_is_not_significant():
    (table,) = contrast_tables(axis_study())
    assert table.caption.startswith("axis made: near, far, even, lost minus made")
    near, far, even, lost = table.rows[4:8]
    assert near[:4] == ("training error, points", "near", "3", "+0.67 [-3.13, +4.46]")
    assert near[5:] == ("0.529", "not significant")
    assert re.fullmatch(r"\[[+-]\d\.\d\d, [+-]\d\.\d\d\]", near[4])
    assert (far[3], *far[5:]) == ("-39.67 [-41.10, -38.23]", "< 0.001", "significant")
    assert even[3:] == ("-10.00 in every seed", "–", "–", "not significant: sign test p 0.750")
    assert lost[1:] == ("lost", "0", "no seed finished both", "–", "–", "")


def test_contrast_of_bimodal_or_untrained_nets_is_called_so():
    errors = {("a",): [0.0, 0.3, 0.01, 0.02, 0.0], ("b",): [0.9, 0.89, 0.9, 0.88, 0.9], ("c",): [0.9] * 5}
    study = study_of(["x"], errors)
    (table,) = contrast_tables(study)
    rows = [row for row in table.rows if row[0] == "training error, points"]
    assert rows[0][-1] == "not significant; bimodal: sign test p 0.125"
    assert error_table(study).rows[1][1] == "5 (untrained)"
    both = study_of(["x"], {place: errors[place] for place in (("b",), ("c",))})
    assert {row[-1] for row in contrast_tables(both)[0].rows} == {"both untrained"}
    assert heading(both) == "No condition trained: every net is hardly better than guessing"


def test_two_seeds_are_not_tested_in_any_table():
    study = study_of(["x"], {("a",): [0.5, 0.501], ("b",): [0.1, 0.1]})
    meanings = {row[-1] for row in contrast_tables(study)[0].rows}
    assert meanings == {"not tested: fewer than 3 seeds", "too few seeds to tell"}
    assert heading(study) == "No difference in test error could be tested"


def test_p_that_rounds_to_the_limit_has_a_fourth_decimal():
    assert [p_value(p) for p in (0.0499, 0.0502, 0.0494, 0.0004, 1.0)] == [
        "0.0499",
        "0.0502",
        "0.049",
        "< 0.001",
        "1.000",
    ]


def test_record_without_counts_is_read_and_drawn():
    """As studies of format 2 were written at first: no run counted, and equal differences with bounds."""
    new = {"trained_below", "trained", "untrained", "counts", "bimodal", "difference"}

    def former(value):
        if isinstance(value, dict):
            kept = {name: former(item) for name, item in value.items() if name not in new}
            if kept.keys() == {"n", "mean", "low", "high", "level"} and kept["low"] is None:
                kept |= {"low": kept["mean"], "high": kept["mean"]}
            return kept
        return [former(item) for item in value] if isinstance(value, list) else value

    study = from_plain(StudyRecord, former(as_plain(axis_study())), "former")
    assert error_table(study).heads == ("axis made", "n", "training error %", "test error %", "training loss")
    (table,) = contrast_tables(study)
    assert [row[1:] for row in table.rows[1:3]] == [
        ("far", "3", "-39.67 [-41.10, -38.23]", table.rows[1][4], "< 0.001", "significant"),
        ("even", "3", "-10.00 in every seed", "–", "–", "not tested: the same in every seed"),
    ]
    assert all(text in page_of(study) for text in ("near", "-10.00 in every seed"))


def test_untrained_nets_have_their_own_answer():
    places = {(kind, depth): [0.9, 0.9, 0.89] for kind in ("none", "default") for depth in ("110", "1202")}
    study = study_of(("shortcut", "depth"), places)
    assert heading(study) == "Training error says nothing in plain nets and residual nets: untrained"
    assert answer_lines(study)[0].startswith("plain nets: training error – untrained: the nets of every depth")


def test_printed_study_ends_with_answers_and_page(capsys, tmp_path):
    print_study(axis_study(), tmp_path / "report.html")
    shown = capsys.readouterr().out
    assert "not complete: 15 of 18 runs have ended" in shown
    assert "Holm" in shown
    assert shown.endswith(f"{answer_lines(axis_study())[-1]}\n\nreport: {tmp_path / 'report.html'}\n")


def test_page_says_when_the_study_is_not_complete():
    assert "Not complete" not in page_of(depth_study())
    assert "12 of 18 runs have ended" in page_of(depth_study(planned=18))


@pytest.mark.parametrize(("make", "count"), [(depth_study, 8), (axis_study, 4)])
def test_report_is_equal_when_drawn_again(tmp_path, make, count):
    for name in ("one", "two"):
        write_report(make(), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == count
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("axes", "errors"),
    [
        (("shortcut", "depth"), {("none", "8"): [0.5]}),
        (("shortcut", "depth"), {("none", "8"): [None], ("none", "20"): [0.1]}),
        (("shortcut", "depth"), {("default", "8"): [None]}),
        (("x",), {("a",): [None]}),
    ],
    ids=str,
)
def test_one_seed_one_condition_and_diverged_runs_can_be_drawn(axes, errors):
    study = study_of(axes, errors)
    cells = [cell for row in error_table(study).rows for cell in row]
    assert any("diverged" in cell for cell in cells) == ([None] in errors.values())
    text = Elements(page_of(study)).text
    assert all(cell in text for cell in cells)


def test_several_shortcuts_and_further_axes_have_a_line_each():
    places = product(("none", "A", "B"), ("8", "20"), ("batch", "none"))
    study = study_of(("shortcut", "depth", "options.norm"), {place: [0.1, 0.2] for place in places})
    axes = draw_training_error(study).axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(study.verdicts) == 6
    assert names[:2] == ["plain, options.norm batch, mean", "plain, options.norm none, mean"]
    assert names[2:4] == ["residual (A), options.norm batch, mean", "residual (A), options.norm none, mean"]
    # A line and two seeds at two depths for each, and the sign of the legend.
    assert len(axes.lines) == 6 * (1 + 2 * 2) + 1
    assert [table.caption.partition(":")[0] for table in contrast_tables(study)] == ["shortcut", "options.norm"]
    assert error_table(study).heads[:3] == ("depth", "shortcut", "options.norm")


def test_inline_svg_has_no_prologue():
    drawing = draw_figures(axis_study())[0]
    assert inline_svg(drawing.name, drawing.svg).startswith('<svg aria-hidden="true"')
    assert drawing.png.startswith(b"\x89PNG")


def test_learning_curves_show_every_run_whole():
    """A limit set too early once cut the first epochs off."""
    figure = draw_learning_curves(depth_study())
    assert [axes.get_title() for axes in figure.axes] == ["depth 8", "depth 56"]
    assert len(figure.axes[0].lines) == 12
    assert figure.axes[0].get_ylim()[1] >= 90
    assert figure.axes[0].get_ylim()[0] == 0


def test_growth_of_an_even_number_of_runs_is_their_median():
    flows = [Flow(growth=value, verdict="healthy") for value in (0.0, 4.0)]
    assert growth([*flows, Flow(growth=None, verdict="broken")]) == "+2.0 healthy, broken"


def test_flatten_names_nested_settings():
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1, 2]}) == {"a.b": "1", "a.c": "–", "d": "1, 2"}


def test_trace_is_the_median_over_the_seeds_by_step():
    moments = {0: [1.0, 2.0, 9.0], 1: [0.5, None, 0.1], 4: [None, None, None]}
    study = depth_study()
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
        for run in study.runs
        if run.values == {"shortcut": "none", "depth": "56"}
    ]
    table = trace_table(replace(study, runs=runs))
    assert table.heads == ("depth", "kind", "n", "0", "1", "4")
    assert table.rows == [("56", "plain", "3", "+2.0", "+0.3", "–")]
    assert trace_table(study).rows == []
    # A quantity that no run has takes no table; one that some runs have counts those.
    assert [table.heads for table in trace_tables(replace(study, runs=runs))] == [table.heads]
    first = runs[0].record.gradient_trace
    some = replace(runs[0].record, gradient_trace=[replace(one, correlation=0.25) for one in first])
    found = trace_tables(replace(study, runs=[replace(runs[0], record=some), *runs[1:]]))
    assert [table.rows for table in found][1] == [("56", "plain", "3", "0.25", "0.25", "0.25")]
    assert "neighbouring images" in found[1].caption

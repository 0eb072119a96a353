import re
from dataclasses import replace

from resnetlab.cli.tables import print_comparison
from resnetlab.report.study.comparison_page import draw_errors, render_comparison, write_comparison
from resnetlab.report.study.comparison_tables import (
    answer_lines,
    combination_table,
    comparison_heading,
    contrast_tables,
    size_table,
)
from tests.made import HOSTILE, compared_run, comparison
from tests.report.test_study_page import Elements


def page_of(study) -> str:
    return render_comparison(study, draw_errors(study))


def test_tables_give_n_p_and_say_what_is_not_significant():
    (table,) = contrast_tables(comparison())
    assert table.heads == ("axis made", "n", "training error", "test error", "bootstrap of test error")
    near, far, even, lost = table.rows
    assert near[:2] == ("near", "3")
    assert near[2] == "+0.67 [-3.13, +4.46] p = 0.529, not significant"
    assert far[:2] == ("far", "3")
    assert far[2] == "-39.67 [-41.10, -38.23] p < 0.001, significant"
    assert even[2] == "-10.00 [-10.00, -10.00] not tested: the same in every seed"
    assert re.fullmatch(r"\[[+-]\d\.\d\d, [+-]\d\.\d\d\]", near[4])
    assert lost == ("lost", "0", "no seed finished both", "no seed finished both", "–")
    rows = combination_table(comparison()).rows
    assert rows[0][:3] == ("made", "3", "51.33 ± 1.53")
    assert rows[-1][1:3] == ("0 (3 diverged)", "diverged")


def test_printed_tables_end_with_the_rule_and_the_page(capsys, tmp_path):
    print_comparison(comparison(), tmp_path / "report.html")
    shown = capsys.readouterr().out
    assert "not complete: 15 of 18 runs have ended" in shown
    assert "Holm" in shown
    assert shown.endswith(f"report: {tmp_path / 'report.html'}\n")


def test_page_shows_every_cell_and_the_command_and_fetches_nothing():
    page = page_of(comparison())
    elements = Elements(page)
    for table in (combination_table(comparison()), size_table(comparison()), *contrast_tables(comparison())):
        assert all(cell in elements.text for row in table.rows for cell in row)
    assert "resnetlab study --data made" in elements.text
    assert "15 of 18 runs have ended" in elements.text
    assert elements.fetched == []
    assert len(re.findall(r'role="img" aria-label="[^"]{30,}"', page)) == 1


def test_heading_and_answer_state_what_was_found():
    study = comparison()
    assert comparison_heading(study) == "Significant differences in test error: 1 of 2"
    assert answer_lines(study) == [
        "Lowest mean test error: 5.83 ± 0.76 %, n = 3, with axis made far",
        "axis made, significant differences from made: 1 of 2",
    ]
    few = replace(study, contrasts=study.contrasts[:1])
    assert comparison_heading(few) == "Significant differences in test error: none of 1"
    none = replace(study, contrasts=[], combinations=[])
    assert comparison_heading(none) == "No difference in test error could be tested"
    assert answer_lines(none) == []


def test_hostile_values_add_no_element():
    hostile = page_of(comparison(HOSTILE))
    assert Elements(hostile).tags == Elements(page_of(comparison())).tags
    assert HOSTILE not in hostile
    assert HOSTILE in Elements(hostile).text


def test_values_that_matplotlib_would_take_for_formulas_or_that_are_long_are_drawn():
    for name in ("$x", "$\\frac$", "x" * 500):
        assert draw_errors(comparison(name)).png


def test_comparison_is_equal_when_drawn_again(tmp_path):
    for name in ("one", "two"):
        write_comparison(comparison(), tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 3
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes() for file in files)


def test_study_without_contrasts_or_in_which_all_runs_diverged_can_be_drawn():
    lost = [compared_run({"x": "a"}, 0, None)]
    bare = replace(comparison(), runs=lost, axes={"x": ["a"]}, contrasts=[], combinations=[])
    assert contrast_tables(bare) == []
    assert "resnetlab study" in page_of(bare)

import re

from resnetlab.report.page import cell_kinds, inline_svg, render_template
from resnetlab.report.run.page import follow_page
from resnetlab.report.table import Table


def test_columns_of_numbers_and_of_long_texts_are_told_apart():
    rows = [
        ("8", "1,000", "2.05 ± 0.44", "+0.1", "–", "+0.67 [-3.13, +4.46] p = 0.529, not significant", "1e-07", "a"),
        ("20", "–", "diverged", "-3.2e+05", "97.1%", "no seed", "0.25", "1"),
    ]
    heads = tuple("abcdefgh")
    kinds = ["text", "number", "number", "number", "number", "long", "number", "text"]
    assert cell_kinds(Table(caption="c", heads=heads, rows=rows)) == kinds
    assert cell_kinds(Table(caption="c", heads=("a", "b"), rows=[])) == ["text", "text"]
    assert cell_kinds(Table(caption="c", heads=("a", "b" * 29), rows=[("1", "2")])) == ["text", "long"]


def test_drawing_has_widths_within_which_it_can_be_read():
    def drawn(points: str) -> str:
        return inline_svg("x", f'<?xml version="1.0"?><svg width="{points}pt" height="1pt"/>'.encode())

    assert drawn("331.2").startswith('<svg aria-hidden="true" style="max-width: 530px"')
    assert drawn("756").startswith('<svg aria-hidden="true" class="wide" style="min-width: 756px; max-width: 1210px"')


def test_drawing_made_for_paper_follows_the_page():
    assert follow_page("stroke: #000000; fill: #e4e4e4; stroke: #c2512f") == (
        "stroke: var(--soft); fill: var(--line); stroke: var(--warm)"
    )


def test_policy_of_every_page_forbids_all_but_its_own_images_and_style():
    page = render_template("base.html.jinja")
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]

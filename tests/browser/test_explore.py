"""The page of two conditions side by side in a real browser: what is chosen, shown, drawn and reached."""

import json
from statistics import median

import pytest

from resnetlab.report.study.explore import charts_of, render_explore
from resnetlab.report.table import counted
from resnetlab.study import read_results
from tests.browser.test_pages import LEAST_CONTRAST, LIGHT, WIDTHS, until
from tests.conftest import ROOT
from tests.made import axis_study, depth_study
from tests.report.test_explore import Traced, changed

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def demo():
    return read_results(ROOT / "docs" / "demo" / "results.json")


@pytest.fixture
def opened(tmp_path, tab):
    """Opens the page of a study at an address within it."""

    def open_page(study, view: str = "", width: int = 1280, **given):
        path = tmp_path / "explore.html"
        path.write_text(render_explore(study))
        return tab(f"{path.as_uri()}{view}", width, **given)

    return open_page


def view_of(page) -> list[list[str]]:
    """What both sides have chosen, as the form shows it."""
    return page.ask(
        """['first', 'second'].map((side) => [...document.querySelectorAll(`select[id^=${side}]`)]
            .map((one) => one.selectedOptions[0].textContent))"""
    )


def table_of(page, name: str) -> list[list[str]]:
    return page.ask(f"[...find({name!r}).tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent))")


def of(study, shortcut: str, depth: str) -> tuple:
    """A condition and its runs."""
    values = {"shortcut": shortcut, "depth": depth}
    (condition,) = (one for one in study.conditions if one.values == values)
    return condition, [run for run in study.runs if run.values == values]


def middle(values) -> str:
    """Median and range as the page writes percents."""
    low, high = min(values), max(values)
    return f"{low:.2f}" if low == high else f"{median(values):.2f} [{low:.2f}, {high:.2f}]"


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("", [["plain", "56"], ["residual", "56"]]),
        ("#shortcut=none&depth=20", [["plain", "20"], ["residual", "20"]]),
        ("#shortcut=default&depth=8", [["residual", "8"], ["plain", "8"]]),
        ("#shortcut=none&depth=8,56", [["plain", "8"], ["plain", "56"]]),
        ("#kind=residual,plain&depth=20,56", [["residual", "20"], ["plain", "56"]]),
        ("#shortcut=none,none&depth=8", [["plain", "8"], ["plain", "8"]]),
        ("#numbers", [["plain", "56"], ["residual", "56"]]),
    ],
)
def test_address_chooses_both_conditions(opened, demo, view, expected):
    page = opened(demo, view)
    assert view_of(page) == expected
    link = page.ask("find('view').getAttribute('href')")
    assert view_of(opened(demo, link)) == expected, "the link to this view leads back to it"
    assert page.complaints() == page.requests() == []


def test_address_that_the_study_does_not_have_is_told(opened, demo):
    page = opened(demo, "#depth=57&nothing=1&shortcut=%E0%A4%A&along=depth")
    said = page.ask("find('said').textContent")
    for text in ("depth=57", "nothing=1", "shortcut=%E0%A4%A"):
        assert f"asks for {text}, which this study does not have" in said
    assert page.complaints() == []


@WIDTHS
def test_shown_numbers_are_those_of_the_record(opened, demo, keep, width):
    page = opened(demo, "#shortcut=none&depth=56", width)
    keep(f"explore-demo-{width}.png", page.image())
    sides = [of(demo, "none", "56"), of(demo, "default", "56")]
    rows = {name: cells for name, *cells in table_of(page, "both")}
    assert rows["runs that ended"] == ["5", "5"]
    assert rows["of them diverged"] == ["0", "0"]
    assert rows["trained"] == [counted(condition.trained) for condition, _ in sides]
    for name, split in (("training", "train"), ("test", "test")):
        errors = [[100 * getattr(run.record.final, split).error for run in runs] for _, runs in sides]
        assert rows[f"{name} error after the last epoch, %"] == [middle(values) for values in errors]
    assert rows["growth of the gradients before training, orders of magnitude"][0].startswith(
        f"{median(run.flow_start.growth for run in sides[0][1]):+.1f} ["
    )
    assert page.ask("getComputedStyle(find('choose')).position") == ("static" if width < 600 else "sticky")
    said = page.ask("find('said').textContent")
    condition, runs = sides[0]
    assert f"First, kind plain, depth 56: {condition.trained.count} of 5 runs trained" in said
    assert "differ in kind alone" in said
    assert "chosen by eye prove nothing" in page.ask("document.body.textContent")
    (_, first, second) = table_of(page, "error-table")[2]
    for cell, (_, chosen) in zip((first, second), sides, strict=True):
        errors = [100 * run.record.history[2].running_error for run in chosen]
        assert float(cell.split()[0]) == pytest.approx(median(errors), rel=0.006)
    (step, *cells) = table_of(page, "growth-table")[1]
    assert step == "1"
    growths = [run.record.gradient_trace[1].growth for run in runs]
    assert float(cells[0].split()[0]) == pytest.approx(median(growths), rel=0.006)
    assert [row[0] for row in table_of(page, "blocks-table")][:2] == ["0 stem.conv", "1 stages.0.0"]
    shares = table_of(page, "share-table")
    assert shares[2] == ["56", *(counted(one.trained) for one, _ in sides)]


def test_every_run_is_drawn_where_its_numbers_are(opened, demo):
    page = opened(demo, "#shortcut=none&depth=56")
    lines = "document.querySelectorAll('#error-first path.run')"
    assert page.ask(f"{lines}.length") == 5
    # By the marks at the axes: the lowest is 0, the highest is at the top of the frame.
    low, high, top = page.ask(
        """(() => { const all = (what) => [...document.querySelectorAll(`#error-first ${what}`)];
        const lines = all('line').map((line) => +line.getAttribute('y1'));
        const marks = all('text[text-anchor=end]').map((text) => +text.textContent);
        return [Math.max(...lines), Math.min(...lines), Math.max(...marks)]; })()"""
    )
    _, runs = of(demo, "none", "56")
    for number, run in enumerate(runs):
        path = page.ask(f"{lines}[{number}].getAttribute('d')")
        ys = [float(point.split()[1]) for point in path.replace("M", "L").split("L")[1:]]
        expected = [low - (low - high) * 100 * epoch.running_error / top for epoch in run.record.history]
        assert ys == pytest.approx(expected, abs=1.0)
        circle = page.ask(f"+document.querySelectorAll('#error-first circle')[{number}].getAttribute('cy')")
        assert circle == pytest.approx(low - (low - high) * 100 * run.record.final.train.error / top, abs=0.5)
    marks = "[...document.querySelectorAll('#blocks-{} text[text-anchor=end]')].map((text) => text.textContent)"
    assert page.ask(marks.format("first")) == page.ask(marks.format("second")) != []


def test_choice_by_keyboard_changes_what_is_shown_and_the_address(opened, demo):
    page = opened(demo)
    before = page.ask("find('error-first').innerHTML")
    page.ask("find('first-1').focus()")
    assert page.ask("document.activeElement.labels[0].textContent").startswith("depth")
    page.ask("find('first-1').selectedIndex = 0; find('first-1').dispatchEvent(new Event('change', {bubbles: true}))")
    assert view_of(page)[0] == ["plain", "8"]
    assert page.ask("location.hash") == "#shortcut=none,default&depth=8,56&along=depth"
    assert page.ask("find('error-first-words').textContent") == "kind plain, depth 8, n = 5"
    assert page.ask("find('error-first').innerHTML") != before
    assert "belongs to one of these alone" in page.ask("find('said').textContent")
    page.ask("location.hash = '#shortcut=default&depth=20'")
    assert until(lambda: view_of(page) == [["residual", "20"], ["plain", "20"]])
    page.ask("location.hash = '#blocks'")
    assert until(lambda: page.ask("window.scrollY > 100"))
    assert page.ask("Math.round(find('choose').getBoundingClientRect().top)") == 0, "the form stays in sight"
    assert page.ask("find('blocks').getBoundingClientRect().top >= find('choose').offsetHeight")
    assert view_of(page) == [["residual", "20"], ["plain", "20"]]
    page.ask("find('along').selectedIndex = 0; find('along').dispatchEvent(new Event('change'))")
    assert [row[0] for row in table_of(page, "share-table")] == ["plain", "residual"]
    assert page.complaints() == []


def test_screen_reader_finds_names_of_controls_and_pictures(opened, demo):
    page = opened(demo, "#shortcut=none&depth=56")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    controls = sorted(name for role, name in named if role == "combobox")
    assert controls == ["Along", "depth", "depth", "kind", "kind"]
    groups = sorted(name for role, name in named if role == "group" and name)
    assert groups == ["First condition", "Second condition"]
    images = [name for role, name in named if role == "image"]
    assert len(images) == 2 * len(charts_of(demo)) + 1
    said = "Training error, kind plain, depth 56, 5 runs by epoch; training error: median from "
    assert sum(name.startswith(said) for name in images) == 1
    (shares,) = (name for name in images if name.startswith("Share of the runs that trained along depth. "))
    assert f"56, {', '.join(counted(of(demo, kind, '56')[0].trained) for kind in ('none', 'default'))}" in shares


@WIDTHS
@LIGHT
def test_study_with_further_moments_and_conditions_without_runs_is_drawn(opened, keep, width, dark):
    moments = [
        Traced(step=step, first=2.0**-step, last=0.0, growth=-step, correlation=0.9 - step / 20, made_up=1e-9 * step)
        for step in (0, 1, 2, 4, 8, 16)
    ]
    study = changed(depth_study(), gradient_trace=moments)
    study.runs[:] = [run for run in study.runs if run.values != {"shortcut": "default", "depth": "56"}]
    study.conditions[:] = [one for one in study.conditions if one.values != {"shortcut": "default", "depth": "56"}]
    page = opened(study, "#shortcut=none,default&depth=56", width, dark=dark)
    assert "Second, kind residual, depth 56: no run of this condition has ended." in page.ask(
        "find('said').textContent"
    )
    assert [row[2] for row in table_of(page, "correlation-table")] == ["–"] * 6
    assert [row[1] for row in table_of(page, "made_up-table")][:3] == ["0", "1.00e-9", "2.00e-9"]
    keep(f"explore-further-{width}-{'dark' if dark else 'light'}.png", page.image())
    page.ask("checks.open()")
    for check in ("overflow()", "unreachable()", "wordless()", "headings()", f"contrast({LEAST_CONTRAST})"):
        assert page.ask(f"checks.{check}") == [], check
    assert page.complaints() == []


def test_diverged_runs_are_counted_and_leave_no_picture_broken(opened):
    page = opened(axis_study(), f"#{json.dumps('x')}=1&axis made=made,lost")
    assert "3 diverged" in page.ask("find('said').textContent")
    assert {name: cells for name, *cells in table_of(page, "both")}["of them diverged"] == ["0", "3"]
    assert page.ask("[median([9, 1, null]), median([5, 1, 2]), median([null])]") == [5, 2, None]
    assert "NaN" not in page.ask("document.body.innerHTML.replace(/<script[^]*?<.script>/g, '')")
    assert page.complaints() == []

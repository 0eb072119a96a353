"""Every kind of page in a real browser: what it asks for, how it fits, how it is reached, read and printed.

Beside each check stands a page that must fail it.
"""

import json
import time

import pytest

from tests.hostile import NAMES, PAGES, pages_of

pytestmark = pytest.mark.browser

PHONE, DESKTOP, PAPER = 390, 1280, 688
"""Widths in pixels. That of paper is A4 between margins of 14 mm."""
LEAST_CONTRAST = 4.5
CONTENTS = ("realistic", "hostile")
KINDS = pytest.mark.parametrize("kind", PAGES)
HELD = pytest.mark.parametrize("content", CONTENTS)
WIDTHS = pytest.mark.parametrize("width", [PHONE, DESKTOP])
LIGHT = pytest.mark.parametrize("dark", [False, True], ids=("light", "dark"))


@pytest.fixture
def control(tmp_path, tab):
    """A page of faults."""

    def write(body: str, style: str = "", width: int = PHONE):
        path = tmp_path / "control.html"
        head = f'<meta name="viewport" content="width=device-width"><style>{style}</style>'
        path.write_text(f"<!DOCTYPE html><html lang=en><head>{head}</head><body>{body}</body></html>")
        return tab(path, width)

    return write


@KINDS
@HELD
@WIDTHS
@LIGHT
def test_page_fits_is_read_and_asks_for_nothing(pages, tab, keep, kind, content, width, dark):
    page = tab(pages(kind, content), width, dark=dark)
    keep(f"{kind}-{content}-{width}-{'dark' if dark else 'light'}.png", page.image())
    for check in ("overflow()", "unreachable()", "wordless()", "headings()", f"contrast({LEAST_CONTRAST})"):
        assert page.ask(f"checks.{check}") == [], check
    page.ask("checks.open()")
    for check in ("overflow()", "unreachable()", "hidden()", f"contrast({LEAST_CONTRAST})"):
        assert page.ask(f"checks.{check}") == [], check
    assert page.ask("checks.measured") > 100
    assert page.requests() == []
    assert page.complaints() == []


@KINDS
@HELD
def test_printed_page_is_dark_on_white_whole_and_opened(pages, tab, keep, kind, content):
    page = tab(pages(kind, content), DESKTOP, dark=True)
    page.show(width=PAPER, dark=True, paper=True)
    assert page.ask("checks.paper()") == [255, 255, 255, 1]
    for check in ("overflow()", "clipped()", "hidden()", f"contrast({LEAST_CONTRAST})"):
        assert page.ask(f"checks.{check}") == [], check
    printed = page.printed()
    assert printed.startswith(b"%PDF-")
    assert printed.count(b"/Type /Page\n") >= 2
    keep(f"{kind}-{content}.pdf", printed)


@KINDS
def test_every_stop_is_reached_by_the_keyboard_with_a_ring(pages, tab, kind):
    page = tab(pages(kind, "made"), PHONE)
    reached = {}
    for _ in range(page.ask("checks.stops()")):
        page.press("Tab")
        place, ring, words = page.ask("checks.focus()")
        reached[place] = words
        assert ring, words
    assert len(reached) == page.ask("checks.stops()") > 5
    assert page.ask("[...document.querySelectorAll('.scroll, .drawing')].every(node => node.tabIndex === 0)")


@KINDS
def test_keys_move_a_wide_box_and_open_what_is_folded(pages, tab, kind):
    page = tab(pages(kind, "realistic"), PHONE)
    page.ask("(window.box = checks.wide()).focus()")
    page.press("ArrowRight")
    assert until(lambda: page.ask("box.scrollLeft > 0"))
    page.ask("document.querySelector('summary').focus()")
    assert page.ask("document.querySelector('details').open") is False
    page.press("Enter")
    assert until(lambda: page.ask("document.querySelector('details').open"))


@KINDS
def test_every_image_box_and_table_has_a_name_for_a_screen_reader(pages, tab, kind):
    page = tab(pages(kind, "realistic"))
    page.ask("checks.open()")
    nodes = [node for node in page.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]
    for role in ("image", "region", "table", "navigation"):
        names = [name for found, name in named if found == role]
        assert all(names), role
        assert names or (role, kind) == ("navigation", "diagnosis"), "each page has some"


@KINDS
def test_hostile_names_add_no_element_to_what_the_browser_builds(pages, tab, kind):
    harmless = tab(pages(kind, "made"))
    expected = harmless.ask("checks.elements()")
    assert tab(pages(kind, "hostile")).ask("checks.elements()") == expected
    # As it is parsed, before a program has drawn anything.
    expected = harmless.ask(f"checks.parse({json.dumps(pages(kind, 'made').read_text())})")
    for name, page in pages_of(kind).items():
        assert harmless.ask(f"checks.parse({json.dumps(page)})") == expected, name


def test_hostile_names_would_be_seen_where_they_are_not_escaped(pages, tab):
    """The control of the test above."""
    harmless = tab(pages("run", "made"))
    expected = harmless.ask("checks.elements()")
    page = pages("run", "made").read_text()
    broken = [page.replace("<h1>", f"<h1>{name}", 1) for name in NAMES]
    assert sum(harmless.ask(f"checks.parse({json.dumps(each)})") != expected for each in broken) >= 8


@KINDS
def test_policy_stops_what_a_page_might_ask_for(pages, tab, kind):
    page = tab(pages(kind, "made"))
    page.ask(
        """for (const [name, given] of [["img", {src: "http://127.0.0.1:9/x.png"}], ["img", {src: "x.png"}],
                 ["script", {textContent: "window.ran = true"}], ["iframe", {src: "data:text/html,x"}],
                 ["base", {href: "http://127.0.0.1:9/"}]])
             document.body.append(Object.assign(document.createElement(name), given))"""
    )
    assert until(lambda: page.ask("true") and len(page.complaints()) >= 5)
    assert page.requests() == []
    assert page.ask("window.ran === undefined && document.baseURI === location.href")


@KINDS
@HELD
def test_page_is_smaller_than_three_megabytes(pages, kind, content):
    assert pages(kind, content).stat().st_size < 3_000_000


def test_control_that_asks_and_complains_is_caught(control):
    page = control(
        '<img src="http://127.0.0.1:9/x.png"><img src="x.png"><script>console.error("mine"); undefined.x</script>'
    )
    assert until(lambda: page.ask("true") and len(page.requests()) == 2)
    assert until(lambda: page.ask("true") and len(page.complaints()) >= 3)


def test_control_without_order_words_or_room_is_caught(control):
    page = control(
        '<h2>x</h2><h4>y</h4><img src="data:,"><svg></svg><div style="width: 900px">wide</div>'
        '<div style="overflow-x: auto; width: 100px"><p style="width: 300px">box</p></div>'
    )
    assert len(page.ask("checks.headings()")) == 2
    assert len(page.ask("checks.wordless()")) == 2
    assert len(page.ask("checks.unreachable()")) == 1
    assert page.ask("checks.overflow()")[1].startswith("div.: wide")


def test_control_of_pale_or_folded_text_is_caught(control):
    page = control(
        "<p style='color: #777'>4.48</p><p style='opacity: .5'>half</p>"
        "<p style='background: rgba(0, 0, 0, .7)'>dark</p><svg><text y=20 fill=silver>drawn</text></svg>"
        "<p>black</p><details><summary>more</summary><p>less</p></details>"
    )
    faults = page.ask(f"checks.contrast({LEAST_CONTRAST})")
    assert [fault.split(": ")[1] for fault in faults] == ["4.48", "half", "dark", "drawn"]
    assert faults[0].startswith("4.48 ")
    assert len(page.ask("checks.hidden()")) == 1


def test_control_that_is_wider_than_paper_or_dark_is_caught(control):
    page = control(
        "<div class='scroll'><div style='width: 900px'>x</div></div>",
        "@media (prefers-color-scheme: dark) { body { background: #000; color: #fff } }",
    )
    page.show(width=PAPER, dark=True, paper=True)
    assert len(page.ask("checks.clipped()")) == 1
    assert page.ask("checks.paper()") == [0, 0, 0, 1]


def until(holds) -> bool:
    """Whether it comes to hold within five seconds."""
    end = time.monotonic() + 5
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True

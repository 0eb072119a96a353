"""Names from outside stand on every page as text, whatever they hold."""

import re
import xml.etree.ElementTree as ET

import pytest

from tests.hostile import NAMES, PAGES, drawn_without_names, pages_of
from tests.report.conftest import vectors_alone
from tests.report.test_study_page import Elements

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module", params=PAGES)
def pages(request) -> tuple[str, dict[str, str]]:
    """A harmless page of a kind, and a page with each hostile name."""
    with vectors_alone():
        return PAGES[request.param]("made"), pages_of(request.param)


def test_names_are_thirty_and_distinct():
    assert len(set(NAMES)) == len(NAMES) >= 30


def test_hostile_names_add_no_element_attribute_or_request_and_are_shown(pages):
    harmless, hostile = Elements(pages[0]), pages[1]
    for name, page in hostile.items():
        found = Elements(page)
        assert found.tags == harmless.tags, name
        assert kinds(found.fetched) == kinds(harmless.fetched), name
        assert attributes(page) == attributes(pages[0]), name
        assert not name.isprintable() or name in found.text, name
        assert page.encode(), "it can be written"


def test_hostile_name_would_be_seen_where_it_is_not_escaped(monkeypatch):
    """The control of the test above."""
    from markupsafe import Markup

    with vectors_alone():
        drawn = drawn_without_names("run")
    harmless = Elements(PAGES["run"]("made", drawn)).tags
    monkeypatch.setattr("resnetlab.report.run.page.run_title", lambda record: Markup(record.data["source"]))
    assert len([name for name in NAMES if Elements(PAGES["run"](name, drawn)).tags != harmless]) >= 8


def test_figures_with_hostile_names_are_xml_without_scripts(pages):
    harmless, hostile = drawings(pages[0]), pages[1]
    for name, page in hostile.items():
        for ours, clean in zip(drawings(page), harmless, strict=True):
            tags, expected = ([element.tag for element in ET.fromstring(svg).iter()] for svg in (ours, clean))
            assert set(tags) == set(expected), name
            assert tags.count(f"{SVG}text") == expected.count(f"{SVG}text"), name


def test_name_between_dollars_is_drawn_as_it_is():
    with vectors_alone():
        (svg,) = drawings(PAGES["axis"]("$x_1$"))
    assert "axis $x_1$ $x_1$" in svg


def kinds(addresses: list[str]) -> list[str]:
    """Addresses without the images that stand in them, in which a name may be drawn."""
    return [address.partition(",")[0] for address in addresses]


def drawings(page: str) -> list[str]:
    return re.findall("<svg.*?</svg>", page, re.DOTALL)


def attributes(page: str) -> dict[str, int]:
    """How often each attribute stands in a tag outside the drawings."""
    found: dict[str, int] = {}
    for tag in re.findall(r"<[a-z][^>]*>", re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL)):
        for name in re.findall(r'\s([\w:-]+)="[^"]*"', tag):
            found[name] = found.get(name, 0) + 1
    return found

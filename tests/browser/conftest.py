"""A browser for the tests in this folder, the pages that they open, and where their images are kept."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import MISSING, Chromium, Tab, find_chromium
from tests.browser.realistic import REALISTIC
from tests.conftest import ROOT
from tests.hostile import NAMES, PAGES

SHOTS = Path(os.environ.get("RESNETLAB_SHOTS", ROOT / "runs" / "browser"))
KEPT = pytest.StashKey[bool]()
SEPARATOR, LONGEST = " | ", 120
"""All names stand in one page, of the longest this many letters: it is to be looked at."""


@pytest.fixture(scope="session")
def chromium(tmp_path_factory) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip(MISSING)
    browser = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def pages(tmp_path_factory) -> Callable[[str, str], Path]:
    """The file of a page by its kind and what it holds: ``realistic``, ``made`` or ``hostile``. Each is drawn once."""
    folder = tmp_path_factory.mktemp("pages")

    def page(kind: str, content: str) -> Path:
        path = folder / f"{kind}-{content}.html"
        if not path.exists():
            names = {"made": "made", "hostile": SEPARATOR.join(name[:LONGEST] for name in NAMES)}
            drawn = REALISTIC[kind]() if content == "realistic" else PAGES[kind](names[content])
            path.write_text(drawn)
        return path

    return page


@pytest.fixture
def tab(chromium) -> Iterator[Callable[..., Tab]]:
    """Opens a page at a width, for a viewer who likes the light or the dark."""
    opened: list[Tab] = []

    def open_tab(path: Path | str, width: int = 1280, *, dark: bool = False) -> Tab:
        opened.append(Tab(chromium, path, width=width, dark=dark))
        return opened[-1]

    yield open_tab
    for each in opened:
        each.close()


@pytest.fixture
def keep(request) -> Callable[[str, bytes], None]:
    """Keeps an image of a page for those who want to look at it."""

    def write(name: str, content: bytes) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        (SHOTS / name).write_bytes(content)
        request.config.stash[KEPT] = True

    return write


def pytest_terminal_summary(terminalreporter, config) -> None:
    if config.stash.get(KEPT, False):
        terminalreporter.write_line(f"images of the pages: {SHOTS}")

"""Names in letters that the font lacks are shown in a way that says so."""

import warnings

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from resnetlab.report.contact_sheet import write
from resnetlab.report.figure import spelled, to_png, to_svg


@pytest.mark.parametrize(("text", "shown"), [("犬", r"\u72ac"), ("žluť ×", "žluť ×"), ("cat 🐈", r"cat \U0001f408")])
def test_letter_that_the_font_lacks_is_its_number(text, shown):
    assert spelled(text) == shown


def drawn() -> Figure:
    figure = Figure()
    axes = figure.subplots()
    axes.set_yticks([0, 1], ["犬", "cat"], parse_math=False)
    axes.set_title("猫")
    axes.plot([0, 1], label="鳥")
    axes.legend()
    return figure


def texts(figure: Figure) -> set[str]:
    figure.draw_without_rendering()
    return {text.get_text() for text in figure.findobj(Text)}


def test_picture_spells_every_name_and_the_drawing_keeps_it_for_the_viewers_font():
    figure = drawn()
    svg = to_svg(figure).decode()
    assert all(name in svg for name in ("犬", "猫", "鳥"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_png(figure)
        assert {r"\u72ac", r"\u732b", r"\u9ce5", "cat"} <= texts(figure)


def test_picture_without_such_names_is_the_same_as_before():
    figure, other = Figure(), Figure()
    for one in (figure, other):
        one.subplots().set_yticks([0, 1], ["dog", "cat"])
    first = to_png(figure)
    assert first == to_png(figure) == to_png(other)


def test_contact_sheet_spells_names_before_it_cuts_them():
    figure = Figure()
    write(figure.subplots(), 0, 0, "犬" * 9, 22)
    assert r"\u72ac\u72ac\u72ac\u7…" in texts(figure)

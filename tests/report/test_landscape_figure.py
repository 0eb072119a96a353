from dataclasses import replace

import pytest

from resnetlab.report.diagnosis.landscape import draw_landscapes
from tests.made import HOSTILE, landscape_reading


def test_drawing_shows_the_numbers_and_is_the_same_each_time():
    first = draw_landscapes({"with": landscape_reading(), "without": landscape_reading(scale=50)})
    assert first == draw_landscapes({"with": landscape_reading(), "without": landscape_reading(scale=50)})
    text = first.svg.decode()
    assert "centre 0.1, n = 1,000" in text
    assert "flat 25%" in text
    assert "convex 100%" in text
    assert first.png.startswith(b"\x89PNG")
    assert "with: 0.1 in the centre, from 0.1 to 2.1 on the square; without: 5 in the centre" in first.description


def test_text_keeps_names_as_they_are():
    text = draw_landscapes({HOSTILE: landscape_reading(), "$\\frac{$": landscape_reading()}).svg.decode()
    assert "<script>" not in text
    assert "$\\frac{$" in text


@pytest.mark.parametrize("value", [None, 0.0, 3.0, 1e38])
def test_surfaces_of_any_numbers_are_drawn(value):
    level = replace(landscape_reading(), losses=[[value] * 5] * 5, centre=value, flat=None, convex=None)
    drawing = draw_landscapes({"level": level})
    assert "flat" not in drawing.svg.decode()
    assert ("not finite at 25" in drawing.description) is (value is None)
    holed = landscape_reading()
    holed.losses[0][0] = value
    assert draw_landscapes({"holed": holed}).svg
    assert draw_landscapes({"holed": holed, "level": level}).svg

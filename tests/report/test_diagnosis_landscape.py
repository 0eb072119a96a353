from dataclasses import replace

import pytest

from resnetlab.report.diagnosis.landscape import draw, tables
from tests.made import diagnosis, landscape_result


def around(**surfaces):
    """A diagnosis whose net, and plain counterpart if it has one, stand on those surfaces."""
    found = diagnosis()
    net = replace(found.net, landscape=surfaces["net"])
    plain = replace(found.plain, landscape=surfaces["plain"]) if "plain" in surfaces else None
    return replace(found, net=net, plain=plain)


def test_drawing_shows_the_numbers_and_is_the_same_each_time():
    (first,) = draw(diagnosis())
    assert [first] == draw(diagnosis())
    text = first.svg.decode()
    for words in ("this net", "plain", "centre 0.1, n = 1,000", "centre 5,", "flat 25%", "convex 100%"):
        assert words in text
    assert "net: 0.1 in the centre, from 0.1 to 2.1 on the square; plain: 5 in the centre" in first.description
    assert "plain" not in draw(around(net=landscape_result()))[0].svg.decode()


def test_nets_of_one_name_have_a_row_each():
    found = around(net=landscape_result(), plain=landscape_result(scale=50))
    (table,) = tables(replace(found, plain=replace(found.plain, model=found.net.model)))
    assert [row[1] for row in table.rows] == ["0.1", "5"]


@pytest.mark.parametrize("value", [None, 0.0, 3.0, 1e38])
def test_surfaces_of_any_numbers_are_drawn(value):
    level = replace(landscape_result(), losses=[[value] * 5] * 5, centre=value, flat=None, convex=None)
    (drawing,) = draw(around(net=level))
    assert "flat" not in drawing.svg.decode()
    assert ("not finite at 25" in drawing.description) is (value is None)
    holed = landscape_result()
    holed.losses[0][0] = value
    assert draw(around(net=holed))[0].svg
    assert draw(around(net=holed, plain=level))[0].svg

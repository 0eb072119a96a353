from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.report.diagnosis.cam import MOST_CAMS, STRENGTH, Cam, draw_cams, lay_over
from tests.made import HOSTILE
from tests.report.test_sheet import contains, pixels

RNG = np.random.default_rng(0)


def cam(side: int = 8, channels: int = 3, caption: str = "3, taken for 5", heat: float | None = None) -> Cam:
    return Cam(
        caption=caption,
        image=RNG.integers(0, 256, (side, side, channels), dtype=np.uint8),
        heat=RNG.random((side, side)) if heat is None else np.full((side, side), heat),
    )


def grown(image: np.ndarray, factor: int) -> np.ndarray:
    return image.repeat(factor, 0).repeat(factor, 1)


@pytest.mark.parametrize(("side", "factor"), [(8, 12), (28, 3), (32, 3), (96, 1), (128, 1)])
def test_image_and_its_overlay_stand_on_the_sheet(side, factor):
    cams = [cam(side) for _ in range(5)]
    sheet = pixels(draw_cams("t", "d", cams))
    for one in cams:
        assert contains(sheet, grown(one.image, factor))
        assert contains(sheet, lay_over(grown(one.image, factor), one.heat))
    assert not contains(sheet, grown(cam(side).image, factor))


@pytest.mark.parametrize("heat", [0.0, float("nan")])
def test_no_heat_leaves_the_grey_image(heat):
    one = cam(channels=1, heat=heat)
    colours = one.image.repeat(3, 2)
    assert np.array_equal(lay_over(colours, one.heat), colours)


def test_full_heat_covers_by_its_strength():
    found = lay_over(np.zeros((4, 4, 3), np.uint8), np.ones((4, 4)))
    import matplotlib as mpl

    expected = 255 * STRENGTH * np.array(mpl.colormaps["inferno"](1.0)[:3])
    assert np.abs(found - expected).max() <= 0.5


def test_heat_lies_where_it_is():
    heat = np.zeros((8, 8))
    heat[:, :2] = 1
    found = lay_over(np.full((8, 8, 3), 90, np.uint8), heat)
    assert (found[:, 6:] == 90).all()
    assert (found[:, 0] != 90).any(axis=-1).all()


@pytest.mark.parametrize("count", [0, 1, 3, 13, MOST_CAMS + 5])
def test_any_number_of_images_fits(count):
    sheet = pixels(draw_cams("t", "d", [cam() for _ in range(count)]))
    assert max(sheet.shape) < 4000


def test_large_images_and_captions_of_any_letters_are_drawn_the_same_each_time():
    for caption in (HOSTILE, "$\\frac{$", "", "日本語", "x" * 500):
        one = cam(side=224, caption=caption)
        first = draw_cams(caption, caption, [one])
        assert first == draw_cams(caption, caption, [one])
        assert Image.open(BytesIO(first)).format == "PNG"

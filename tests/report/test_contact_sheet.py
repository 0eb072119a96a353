"""The contact sheet: its pixels are those of the images, whatever the names."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.report.contact_sheet import SheetRow, draw_sheet
from tests.made import HOSTILE

RNG = np.random.default_rng(0)


def row(name="a", n=3, side=8, channels=3):
    return SheetRow(name=name, detail="1 + 1", images=RNG.integers(0, 256, (n, side, side, channels), dtype=np.uint8))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def contains(sheet: np.ndarray, image: np.ndarray) -> bool:
    """Whether the image stands somewhere on the sheet, pixel for pixel."""
    height, width = image.shape[:2]
    for top, left in np.argwhere((sheet[: 1 - height, : 1 - width] == image[0, 0]).all(-1)):
        if np.array_equal(sheet[top : top + height, left : left + width], image):
            return True
    return False


@pytest.mark.parametrize(("side", "grown"), [(8, 8), (28, 2), (32, 2), (64, 1), (96, 1)])
def test_every_image_stands_on_the_sheet_grown_by_whole_pixels(side, grown):
    rows = [row(side=side), row("b", side=side)]
    sheet = pixels(draw_sheet("t", "d", rows))
    for image in (*rows[0].images, *rows[1].images):
        assert contains(sheet, image.repeat(grown, 0).repeat(grown, 1))
    assert not contains(sheet, row(side=side).images[0].repeat(grown, 0).repeat(grown, 1))


def test_names_of_files_stand_below_their_images_and_move_no_pixel():
    plain = row()
    named = replace(plain, captions=("train/cat/1.png", HOSTILE, "$\\frac{$"))
    sheet = pixels(draw_sheet("t", "d", [named, row()]))
    assert sheet.shape[0] > pixels(draw_sheet("t", "d", [plain, row()])).shape[0]
    assert all(contains(sheet, image.repeat(8, 0).repeat(8, 1)) for image in plain.images)


def test_large_images_shrink():
    assert draw_sheet("t", "d", [row(side=224)] * 2)


def test_peak_is_white_and_grey_is_grey():
    image = np.arange(0, 64, dtype=np.uint8).reshape(1, 8, 8, 1) // 4  # 0 to 15
    sheet = pixels(draw_sheet("t", "d", [SheetRow(name="a", detail="", images=image)], peak=15))
    assert contains(sheet, (image[0] * 17).repeat(3, 2).repeat(8, 0).repeat(8, 1))


NAMES = [
    HOSTILE,
    "$",
    "$\\frac{$",
    "\\",
    "{",
    "%s",
    "",
    " ",
    "日本語",
    "x\n\x1b[31m\0",
    "\udcff",
    "a" * 1000,
    "\u202e",
    "🎉",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_letters_are_drawn(name):
    assert Image.open(BytesIO(draw_sheet(name, name, [row(name), row()]))).format == "PNG"


@pytest.mark.parametrize("count", [0, 1, 12, 13, 30, 31, 100, 150])
def test_any_number_of_classes_fits(count):
    rows = [row(str(number), n=12) for number in range(count)]
    sheet = pixels(draw_sheet("t", "d", rows))
    assert max(sheet.shape) < 4000
    if rows:
        assert contains(sheet, rows[min(count, 100) - 1].images[0].repeat(8, 0).repeat(8, 1))


def test_classes_without_images_have_an_empty_row():
    assert draw_sheet("t", "d", [row(n=0), row(n=2), row(n=0)])
    assert draw_sheet("t", "d", [row(n=0)])


def test_sheet_is_the_same_each_time():
    rows = [row(), row()]
    assert draw_sheet("t", "d", rows) == draw_sheet("t", "d", rows)

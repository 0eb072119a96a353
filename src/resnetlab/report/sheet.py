"""The contact sheet of a data set: some pictures of each class, with its name."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray[Any, np.dtype[np.uint8]]

MOST_CLASSES, MOST_PICTURES = 100, 12
CELL, GAP, DPI = 64, 6, 150
"""Pixels of a picture on the sheet and between two; dots per inch of the file."""
MARGIN, HEAD = 250, 150
"""Pixels for the names left of the pictures, and for the title above."""
LONGEST = 22
PAPER = 255


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A class: its name, a line below it such as its counts, and pictures ``(n, H, W, C)`` as uint8."""

    name: str
    detail: str
    pictures: Array


def draw_sheet(title: str, detail: str, rows: Sequence[SheetRow], peak: int = 255) -> bytes:
    """A PNG with a row for each of at most ``MOST_CLASSES`` classes, in as many columns of rows as keep it handy.

    ``peak`` is the grey level that is shown as white: 16 for the digits of scikit-learn.
    """
    from matplotlib.figure import Figure

    rows = rows[:MOST_CLASSES]
    columns = 1 if len(rows) <= 12 else 2 if len(rows) <= 30 else 4
    each = min(MOST_PICTURES // columns + 2 * (columns > 1), max((len(row.pictures) for row in rows), default=1)) or 1
    height, block = ceil(len(rows) / columns), MARGIN + each * (CELL + GAP)
    size = (columns * block + 2 * GAP, HEAD + height * (CELL + GAP) + 2 * GAP)
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    canvas = np.full((size[1], size[0], 3), PAPER, dtype=np.uint8)
    for number, row in enumerate(rows):
        left = 2 * GAP + (number // height) * block
        top = HEAD + (number % height) * (CELL + GAP)
        _place(canvas, row.pictures[:each], left + MARGIN - 2 * GAP, top, peak)
        _write(axes, left, top + CELL * 0.36, row.name, size=9)
        _write(axes, left, top + CELL * 0.78, row.detail, size=6.5, color="#606060")
    axes.imshow(canvas, interpolation="nearest", aspect="auto", extent=(0, size[0], size[1], 0))
    _write(axes, 2 * GAP, HEAD * 0.34, title, size=13, longest=60 * columns, weight="bold")
    _write(axes, 2 * GAP, HEAD * 0.68, detail, size=8, longest=110 * columns, color="#606060")
    stream = BytesIO()
    with warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes, which says as much as a warning.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _place(canvas: Array, pictures: Array, left: int, top: int, peak: int) -> None:
    for number, picture in enumerate(pictures):
        at = left + number * (CELL + GAP)
        canvas[top : top + CELL, at : at + CELL] = _fit(picture, peak)


def _fit(picture: Array, peak: int) -> Array:
    """The picture as RGB of CELL × CELL: small ones grow in whole pixels, so that they are seen as the network sees
    them, and large ones shrink smoothly."""
    from PIL import Image

    bright = np.minimum(picture.astype(np.float32) * (255 / max(peak, 1)), 255).round().astype(np.uint8)
    colours = bright[..., :3] if bright.shape[2] >= 3 else np.repeat(bright[..., :1], 3, axis=2)
    small = max(colours.shape[:2]) <= CELL
    image = Image.fromarray(colours).resize(
        (CELL, CELL), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    )
    return np.asarray(image)


def _write(axes: "Axes", x: float, y: float, text: str, *, longest: int = LONGEST, **style: Any) -> None:
    """Write a text as it is: a name may hold $, which would start a formula, or no letters at all."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    axes.text(x, y, shown, va="center", parse_math=False, **style)

"""The contact sheet of a data set: some images of each class, with its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from resnetlab.report.figure import plainly, spelled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, np.dtype[np.uint8]]

MOST_CLASSES, MOST_IMAGES = 100, 12
CELL, LARGEST = 64, 96
"""Pixels of the side of an image on the sheet: about, and at most."""
HEAD, GAP, EDGE, DPI = 130, 6, 24, 150
LETTER, LONGEST = 12, 22
"""Pixels that a letter of a class's name takes, and how many of them are shown."""
CAPTION, CAPTION_LETTER = 14, 5
"""Pixels below an image for the name of its file, and those that a letter of it takes."""
PAPER, GREY = 255, "#606060"


@dataclass(frozen=True, kw_only=True)
class SheetRow:
    """A class: its name, a line below it such as its counts, and images ``(n, H, W, C)`` as uint8 with their names."""

    name: str
    detail: str
    images: Array
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class Grid:
    """Where things lie, in pixels: rows stand in ``blocks`` side by side, ``rows`` in each, ``each`` images a row."""

    blocks: int
    rows: int
    each: int
    cell: int
    margin: int
    caption: int

    @property
    def pitch(self) -> int:
        """From the top of a row to that of the next."""
        return self.cell + self.caption + GAP

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the sheet."""
        width = self.blocks * (self.margin + self.each * (self.cell + GAP) + EDGE) + EDGE
        return HEAD + self.rows * self.pitch + EDGE, max(width, 480)

    def corner(self, number: int) -> tuple[int, int]:
        """Top and left of a row."""
        block, row = divmod(number, self.rows)
        width = self.margin + self.each * (self.cell + GAP) + EDGE
        return HEAD + row * self.pitch, EDGE + block * width


def draw_sheet(title: str, detail: str, rows: Sequence[SheetRow], peak: int = 255) -> bytes:
    """A PNG with a row for each of the first ``MOST_CLASSES`` classes; many of them stand in several columns.

    ``peak`` is the grey level that is shown as white: 16 for the digits of scikit-learn.
    """
    from matplotlib.figure import Figure

    rows = rows[:MOST_CLASSES]
    grid = _plan(rows)
    height, width = grid.size
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    canvas = np.full((height, width, 3), PAPER, dtype=np.uint8)
    for number, row in enumerate(rows):
        top, left = grid.corner(number)
        for place, image in enumerate(row.images[: grid.each]):
            at = left + grid.margin + place * (grid.cell + GAP)
            canvas[top : top + grid.cell, at : at + grid.cell] = fit(image, peak, grid.cell)
            for caption in row.captions[place : place + 1]:
                # The end of a name tells more than the folders that it begins with.
                end = caption[-(grid.cell // CAPTION_LETTER) :]
                write(axes, at, top + grid.cell + CAPTION / 2, end, LONGEST, size=4, color=GREY)
        write(axes, left, top + grid.cell * 0.34, row.name, LONGEST, size=9)
        write(axes, left, top + grid.cell * 0.76, row.detail, LONGEST, size=6.5, color=GREY)
    axes.imshow(canvas, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    write(axes, EDGE, HEAD * 0.34, title, (width - 2 * EDGE) // 17, size=13, weight="bold")
    write(axes, EDGE, HEAD * 0.68, detail, (width - 2 * EDGE) // 9, size=8, color=GREY)
    return to_png(figure)


def to_png(figure: "Figure") -> bytes:
    """The sheet as PNG, equal whenever it is drawn again."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=DPI, metadata={"Software": None})
    return stream.getvalue()


def _plan(rows: Sequence[SheetRow]) -> Grid:
    blocks, each = (1, 12) if len(rows) <= 12 else (2, 8) if len(rows) <= 30 else (4, 5)
    side = max((row.images.shape[1] for row in rows), default=CELL)
    letters = max((len(text) for row in rows for text in (row.name, row.detail)), default=1)
    return Grid(
        blocks=blocks,
        rows=max(1, ceil(len(rows) / blocks)),
        each=max(1, min(each, max((len(row.images) for row in rows), default=1))),
        # A small image grows in whole pixels, so that it is seen as the network sees it.
        cell=side * max(1, round(CELL / side)) if side <= LARGEST else LARGEST,
        margin=EDGE + LETTER * min(letters, LONGEST),
        caption=CAPTION if any(row.captions for row in rows) else 0,
    )


def fit(image: Array, peak: int, cell: int) -> Array:
    """The image as RGB of ``cell`` × ``cell``, with ``peak`` as white."""
    from PIL import Image

    bright = np.minimum(image.astype(np.float32) * (255 / max(peak, 1)), 255).round().astype(np.uint8)
    colours = bright[..., :3] if bright.shape[2] >= 3 else np.repeat(bright[..., :1], 3, axis=2)
    smooth = Image.Resampling.LANCZOS if max(colours.shape) > cell else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(colours).resize((cell, cell), smooth))


def write(axes: "Axes", x: float, y: float, text: str, longest: int, **style: Any) -> None:
    """Write a text as it is: a name may hold $, which would start a formula, or letters that the font lacks."""
    axes.text(x, y, plainly(spelled(text), longest), va="center", parse_math=False, **style)

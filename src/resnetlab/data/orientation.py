"""Which way up a picture is: EXIF orientation, for pixels and for boxes."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[float, float, float, float]
Turn = tuple[int, int, int]
Pixels = NDArray[np.uint8]

TURNS = {2: (0, 1, 0), 3: (0, 1, 1), 4: (0, 0, 1), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
"""EXIF orientation: whether rows and columns change places, after columns and after rows were mirrored."""


def turn_of(image: Image.Image) -> Turn:
    """How the picture is to be turned; not at all where its EXIF is missing or damaged."""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:
        # Damaged EXIF beside whole pixels says nothing about them.
        return 0, 0, 0
    return TURNS.get(orientation, (0, 0, 0)) if isinstance(orientation, int) else (0, 0, 0)


def turned(pixels: Pixels, turn: Turn) -> Pixels:
    """``pixels`` ``(H, W, 3)`` of a file, the way up that they should be seen."""
    swap, columns, rows = turn
    pixels = pixels[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(pixels.transpose(1, 0, 2) if swap else pixels)


def in_file(box: Box, turn: Turn, width: int, height: int) -> Box:
    """Where ``box`` (left, top, right, bottom) of the turned picture lies in the file's ``width`` × ``height``."""
    swap, columns, rows = turn
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if swap else box
    if columns:
        left, right = width - right, width - left
    if rows:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom

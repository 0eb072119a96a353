"""What the images of a set are like, by a few of them."""

from dataclasses import dataclass

import numpy as np

from resnetlab.core.errors import DataError
from resnetlab.data.dataset import Numbers
from resnetlab.data.decode import read_image
from resnetlab.data.ingest import SMALL
from resnetlab.data.opening import EncodedSet

NEARLY_GREY = 8
"""Grey levels by which the channels of a grey JPEG may differ."""
LOOKED_AT = 48
"""Images by which ``glance`` judges a set."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What some images of a set are like: the median ``side``, the shorter one, in pixels, and whether all are
    ``grey``."""

    side: int
    grey: bool


def glance(given: EncodedSet, numbers: Numbers) -> Glance:
    """What images of those numbers are like, by ``LOOKED_AT`` of them, evenly spread. Those that cannot be read are
    passed over. Raises ``DataError`` where none can."""
    sides, grey = [], True
    spread = np.linspace(0, len(numbers) - 1, min(LOOKED_AT, len(numbers))).round().astype(int)
    for number in numbers[spread]:
        cell = given.cells[int(number)]
        try:
            image = read_image(cell, SMALL)
        except Exception:  # what is wrong with it is told when all are read
            continue
        sides.append(min(image.width, image.height))
        grey = grey and bool((image.pixels.max(axis=2) - image.pixels.min(axis=2)).max() <= NEARLY_GREY)
    if not sides:
        raise DataError(f"{given.source}: none of {len(spread)} images that were looked at can be read")
    return Glance(side=int(np.median(sides)), grey=grey)

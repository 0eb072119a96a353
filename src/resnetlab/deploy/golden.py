"""Golden images: test images that a bundle holds with the logits of its trained network, to compare any engine with.

A wrong resize changes few answers and no accuracy, but the logits of each image. No torch is loaded here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from resnetlab.core.errors import CheckpointError, DataError
from resnetlab.core.files import atomic_write, read_json
from resnetlab.core.serialize import from_plain
from resnetlab.data.decode import Pixels
from resnetlab.deploy.bundle import Bundle, checked
from resnetlab.deploy.preprocessing import SHAPES, Preprocessing

GOLDEN = "golden/golden.json"
FP32_TOLERANCE = 1e-3
"""Largest difference of a float32 engine, relative to the largest |logit|. Another processor adds in another order, and
another decoder may round a pixel otherwise, which is no fault; the faults that ``verify`` is for make many times that.
"""
MOST_PIXELS = 1_000_000
"""Of a golden image; a larger one is averaged over whole squares first."""
ENLARGED_EVERY = 4
UPSIDE, TURNED_BACK = 0x0112, 6
"""The EXIF tag of the orientation, and its value for an image that is to be turned right by 90°."""


@dataclass(frozen=True, kw_only=True)
class GoldenImage:
    """An image of the bundle: its ``file``, its true class ``label``, and what the trained network computes of it in
    float32: ``logits``, and the class ``answer`` of the largest."""

    file: str
    label: str
    answer: str
    logits: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """``golden/golden.json``: the golden images, and by engine the largest difference of a logit that passes, relative
    to the largest |logit| of all of them."""

    images: tuple[GoldenImage, ...]
    tolerance: dict[str, float]
    format: Literal[1] = 1

    @property
    def logits(self) -> NDArray[np.float32]:
        """``(N, K)``."""
        return np.array([image.logits for image in self.images], np.float32)


def write_golden_images(folder: Path, originals: Sequence[Pixels], side: int) -> list[str]:
    """Write the images ``(H, W, C)`` in their own size as PNG, so that decoding and resizing them is compared too;
    returns their files. Of other channels than an image file can have they are arrays of numpy.

    Where all have the side of the network's input, every fourth is enlarged, or a wrong resize would change none. Every
    eighth, and the last, lies on its side, with the EXIF orientation that says so.
    """
    ready = all(image.shape[:2] == (side, side) for image in originals)
    files = []
    for number, image in enumerate(originals):
        if image.shape[2] in SHAPES:
            enlarged = ready and number % ENLARGED_EVERY == 0
            content = _png(
                _enlarged(image) if enlarged else image, turn=number % 8 == 7 or number == len(originals) - 1
            )
            files.append(f"golden/{number:03}.png")
        else:
            np.save(stream := BytesIO(), image)
            content = stream.getvalue()
            files.append(f"golden/{number:03}.npy")
        atomic_write(folder / files[-1], content)
    return files


def _enlarged(image: Pixels) -> Pixels:
    times = 4 if len(image) <= 128 else 2
    return image.repeat(times, 0).repeat(times, 1)


def _png(pixels: Pixels, *, turn: bool) -> bytes:
    stored = np.rot90(pixels) if turn else pixels
    image = Image.fromarray(np.ascontiguousarray(stored[:, :, 0] if stored.shape[2] == 1 else stored))
    if image.width * image.height > MOST_PIXELS:
        image = image.reduce(ceil((image.width * image.height / MOST_PIXELS) ** 0.5))
    exif = Image.Exif()
    if turn:
        exif[UPSIDE] = TURNED_BACK
    stream = BytesIO()
    image.save(stream, "PNG", exif=exif)
    return stream.getvalue()


def golden_pixels(folder: Path, files: Sequence[str], preprocessing: Preprocessing) -> Pixels:
    """The pixels ``(N, side, side, C)`` that the decoder makes of golden images."""
    return np.stack(
        [
            preprocessing.pixels(np.load(path, allow_pickle=False) if path.suffix == ".npy" else path, white)
            for path, white in ((folder / file, 255 if file.endswith(".npy") else None) for file in files)
        ]
    )


def read_golden(bundle: Bundle, folder: Path) -> Golden:
    """The golden images of a bundle, the sums of their files checked.

    Raises ``CheckpointError`` where a file is missing or damaged.
    """
    try:
        golden = from_plain(Golden, read_json(checked(bundle, folder, GOLDEN)), str(folder / GOLDEN))
    except DataError as error:
        raise CheckpointError(str(error)) from error
    for image in golden.images:
        checked(bundle, folder, image.file)
    return golden

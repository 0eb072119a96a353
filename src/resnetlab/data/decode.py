"""One image: from the bytes of a file to an array of RGB values.

What a file is, its content decides and not its name. Whatever is wrong with one ends in ``DataError``.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import ceil, exp, floor, log
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from resnetlab.core.errors import DataError, printable
from resnetlab.core.files import read_file
from resnetlab.data.completeness import jpeg_size, missing_pixels, missing_strips

Box = tuple[float, float, float, float]
Turn = tuple[int, int, int]
Pixels = NDArray[np.uint8]

TURNS = {2: (0, 1, 0), 3: (0, 1, 1), 4: (0, 0, 1), 5: (1, 0, 0), 6: (1, 0, 1), 7: (1, 1, 1), 8: (1, 1, 0)}
"""EXIF orientation: whether rows and columns change places, after columns and after rows were mirrored."""


def turn_of(image: Image.Image) -> Turn:
    """How the image is to be turned; not at all where its EXIF is missing or damaged."""
    if image.format == "PNG" and not image.info:
        return 0, 0, 0
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
    """Where ``box`` (left, top, right, bottom) of the turned image lies in the file's ``width`` × ``height``."""
    swap, columns, rows = turn
    left, top, right, bottom = (box[1], box[0], box[3], box[2]) if swap else box
    if columns:
        left, right = width - right, width - left
    if rows:
        top, bottom = height - bottom, height - top
    return left, top, right, bottom


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
MOST_PIXELS = 50_000_000
MOST_PIXELS_HELD = 25_000_000
"""Of WebP, TIFF and progressive JPEG, whose decoders hold an image several times over."""
CROP_RATIO = (3 / 4, 4 / 3)
BAND_PIXELS = 1 << 20
"""About so many pixels are converted at a time, so that a large image is not held twice."""
DRAFT, REDUCE = 2, 4
"""A JPEG is decoded at 1/2, 1/4 or 1/8, and any image averaged over whole squares, while at least so many times the
wanted side is left; then it is filtered."""

JPEG = ("JPEG", "MPO")


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """``pixels`` ``(H, W, 3)``; ``width`` and ``height`` are the file's own, the way up that EXIF says."""

    pixels: Pixels
    width: int
    height: int
    format: str
    lossy: bool


def decode(
    content: bytes | Path,
    side: int | None,
    box: Sequence[float] | None = None,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    name: str = "",
) -> Pixels:
    """The pixels ``(H, W, 3)`` of an image file, or of its bytes; ``name`` is how a message calls it.

    ``side`` None gives the image in its own size. Else the result is a square of that side: without ``box`` the
    short side is resized to it and the middle cut out; with ``box``, four numbers in [0, 1), the box that ``crop_box``
    makes of them is resized. Resizing is bilinear, with a filter against aliasing.

    EXIF orientation is applied, transparency lies on white, of an animation the first frame counts, and 16-bit grey is
    divided by 257. Floating-point pixels are refused: their white is not known.

    Raises ``DataError`` with the reason, whatever it is.
    """
    try:
        return read_image(content, side, box, scale).pixels
    except Exception as error:
        called = name or (printable(content) if isinstance(content, Path) else "the image")
        raise DataError(f"{called} cannot be read: {reason(error)}") from error


def decode_opened(image: Image.Image, side: int) -> Pixels:
    """As ``decode``, for an image that Pillow has opened, which stays as it is.

    Raises ``DataError`` with the reason, whatever it is.
    """
    try:
        check_size(image)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            turn = turn_of(image)
            square = _whole(image) if image.size == (side, side) else _square(image.copy(), side, turn, None, (1, 1))
        return turned(square, turn)
    except Exception as error:
        raise DataError(f"the image cannot be read: {reason(error)}") from error


def read_image(
    content: bytes | Path,
    side: int | None,
    box: Sequence[float] | None = None,
    scale: tuple[float, float] = (0.08, 1.0),
    *,
    own: int | None = None,
    thorough: bool = False,
) -> DecodedImage:
    """As ``decode``, with what the file says of itself; an image that is a square of side ``own`` stays as it is.

    A ``thorough`` look costs a second decoding of progressive JPEG. Raises whatever Pillow raises; ``reason`` puts it
    in words.
    """
    data = content if isinstance(content, bytes) else read_file(content)
    with warnings.catch_warnings():
        # Pillow warns of odd metadata beside pixels that are whole.
        warnings.simplefilter("ignore")
        pixels, turn, facts = _upright_or_not(data, side, box, scale, own, thorough)
    # The file's own pixels are gone by now, so that turning does not hold a large image three times.
    return DecodedImage(pixels=turned(pixels, turn), **facts)


def _upright_or_not(
    data: bytes,
    side: int | None,
    box: Sequence[float] | None,
    scale: tuple[float, float],
    own: int | None,
    thorough: bool,
) -> tuple[Pixels, Turn, dict[str, Any]]:
    """The pixels the way that the file has them, how to turn them, and what else a ``DecodedImage`` tells."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        check_size(image)
        lossy = is_lossy(image, data)
        if missing := missing_strips(image):
            raise ValueError(missing)
        if image.format not in JPEG:
            # PNG may have its EXIF after the pixels, and TIFF turns itself.
            image.load()
        turn = turn_of(image)
        width, height = image.size[::-1] if turn[0] else image.size
        if image.size == (own, own) or (box is None and image.size == (side, side)):
            side = None
        if image.format == "PNG":
            mend_key(image, data)
        pixels = _whole(image) if side is None else _square(image, side, turn, box, scale)
        if missing := missing_pixels(image, data, thorough=thorough):
            raise ValueError(missing)
        return pixels, turn, {"width": width, "height": height, "format": str(image.format), "lossy": lossy}


def check_size(image: Image.Image) -> None:
    """Raise ``ValueError`` for an image without pixels, and for one too large to decode."""
    width, height = image.size
    held = image.format in ("WEBP", "TIFF") or "progressive" in image.info
    most = MOST_PIXELS_HELD if held else MOST_PIXELS
    if not 0 < width * height <= most:
        raise ValueError(f"it has {width}×{height} pixels; 1 to {most:,} are read of this kind of {image.format}")


def pixels_said(data: bytes) -> int | None:
    """So many pixels an image has by its head: of PNG and JPEG, without opening it; None of what has no such head."""
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    size = jpeg_size(data) if data.startswith(b"\xff\xd8") else None
    return size[0] * size[1] if size else None


def mend_key(image: Image.Image, data: bytes) -> None:
    """Put the transparent grey or colour of a loaded PNG into the units of Pillow's pixels.

    Pillow stretches grey of 2 and 4 bits to 8 and cuts colours of 16 bits to 8, but leaves the key as it stands in the
    file. Raises ``ValueError`` where the cut colours do not tell which pixels are transparent.
    """
    key, depth = image.info.get("transparency"), data[24]
    if isinstance(key, int) and image.mode == "L":
        most = (1 << depth) - 1
        image.info["transparency"] = (key & most) * (255 // most)
    elif isinstance(key, tuple) and depth == 16:
        high = tuple(value >> 8 for value in key)
        # On white, a white that is transparent looks like one that is not.
        if high != (255, 255, 255) and (np.asarray(image) == high).all(axis=-1).any():
            raise ValueError("one colour of its 16 bits is transparent, which is not read; save it with 8 bits")
        del image.info["transparency"]
    elif isinstance(key, tuple):
        image.info["transparency"] = tuple(value & 255 for value in key)


def crop_box(
    uniforms: Sequence[float], width: int, height: int, scale: tuple[float, float] = (0.08, 1.0)
) -> tuple[int, int, int, int]:
    """(left, top, width, height) in pixels of the random resized crop that four numbers in [0, 1) stand for.

    The first gives the share of the area, uniform in ``scale``; the second width / height, log-uniform in
    ``CROP_RATIO``; the others row and column, uniform over all places where the box fits. A side that comes out longer
    than the image's is cut to it, where torchvision's RandomResizedCrop draws up to ten times and then takes the
    middle. In memory, ``transforms.resized_boxes`` follows the same rule.
    """
    share, aspect, row, column = map(float, uniforms)
    area = height * width * (scale[0] + share * (scale[1] - scale[0]))
    ratio = exp(log(CROP_RATIO[0]) + aspect * (log(CROP_RATIO[1]) - log(CROP_RATIO[0])))
    tall = min(max(round((area / ratio) ** 0.5), 1), height)
    wide = min(max(round((area * ratio) ** 0.5), 1), width)
    return floor(column * (width - wide + 1)), floor(row * (height - tall + 1)), wide, tall


def reason(error: BaseException) -> str:
    """In words, on one line, why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return f"it is no image in one of the formats {', '.join(FORMATS)}, or its head is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"it has too many pixels; up to {MOST_PIXELS:,} are read"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return printable(text)[:200]


def is_lossy(image: Image.Image, data: bytes) -> bool:
    """Whether the pixels went through lossy compression: JPEG, WebP with a "VP8 " chunk, TIFF with either inside."""
    if image.format == "WEBP":
        return _has_lossy_chunk(data)
    return image.format in JPEG or image.info.get("compression") in ("jpeg", "webp")


def _has_lossy_chunk(data: bytes) -> bool:
    """RIFF: after 12 bytes, chunks of a name, a size and content; a frame ("ANMF") has chunks after 16 bytes."""
    position = 12
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        if kind in (b"VP8 ", b"VP8L"):
            return kind == b"VP8 "
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 24 if kind == b"ANMF" else 8 + size + size % 2
    return False


def _middle(width: int, height: int, side: int) -> Box:
    """What is left when the short side is resized to ``side`` and the middle is cut out, rounded as torchvision does.

    Kept in the image's own pixels, so that a very long one is never resized as a whole.
    """
    short = min(width, height)
    edges = []
    for length in (width, height):
        resized = side * length // short
        start = round((resized - side) / 2)
        edges.append((start * length / resized, (start + side) * length / resized))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def _square(
    image: Image.Image, side: int, turn: Turn, uniforms: Sequence[float] | None, scale: tuple[float, float]
) -> Pixels:
    """``decode`` for a given side, the way up that the file has it."""
    size = image.size
    width, height = size[::-1] if turn[0] else size
    if uniforms is None:
        box = _middle(width, height, side)
    else:
        left, top, wide, tall = crop_box(uniforms, width, height, scale)
        box = (left, top, left + wide, top + tall)
    box = in_file(box, turn, *size)
    if image.format in JPEG:
        part = max(1, int(min(box[2] - box[0], box[3] - box[1]) / (DRAFT * side)))
        drafted = image.draft(None, (max(1, size[0] // part), max(1, size[1] // part)))
        shrunk = size[0] / drafted[1][2] if drafted else 1
        box = (box[0] / shrunk, box[1] / shrunk, box[2] / shrunk, box[3] / shrunk)
    return _resized(image, box, side, beyond=uniforms is None)


def _resized(image: Image.Image, box: Box, side: int, *, beyond: bool) -> Pixels:
    """``box`` as a square of ``side``; with ``beyond`` the filter reaches over the edges of the box, as it does where
    the whole image is resized and then cut."""
    left, top, right, bottom = box
    across, down = ((right - left) / side, (bottom - top) / side) if beyond else (0, 0)
    region = (
        max(0, floor(left - across)),
        max(0, floor(top - down)),
        min(image.width, ceil(right + across)),
        min(image.height, ceil(bottom + down)),
    )
    factor = max(1, int(min(right - left, bottom - top) / (REDUCE * side)))
    columns, rows = (-(-(region[end] - region[end - 2]) // factor) for end in (2, 3))
    along = ((left - region[0]) / factor, min((right - region[0]) / factor, columns))
    below = ((top - region[1]) / factor, min((bottom - region[1]) / factor, rows))
    # Pillow too resizes the rows first; done band by band, the image is never held in RGB.
    narrow = Image.new("RGB", (side, rows))
    for row, band in _bands(image, region, factor):
        small = band.reduce(factor) if factor > 1 else band
        box = (along[0], 0, along[1], small.height)
        narrow.paste(small.resize((side, small.height), Image.Resampling.BILINEAR, box=box), (0, row // factor))
    return np.asarray(narrow.resize((side, side), Image.Resampling.BILINEAR, box=(0, below[0], side, below[1])))


def _whole(image: Image.Image) -> Pixels:
    if image.width * image.height <= BAND_PIXELS:
        return np.asarray(_to_rgb(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for row, band in _bands(image, (0, 0, *image.size), 1):
        pixels[row : row + band.height] = np.asarray(band)
    return pixels


def _bands(image: Image.Image, region: tuple[int, int, int, int], multiple: int) -> Iterator[tuple[int, Image.Image]]:
    """Bands of ``region`` in RGB, top to bottom, with the row where each starts: a multiple of ``multiple``."""
    left, top, right, bottom = region
    rows = multiple * max(1, BAND_PIXELS // ((right - left) * multiple))
    for start in range(top, bottom, rows):
        yield start - top, _to_rgb(image.crop((left, start, right, min(bottom, start + rows))))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white is not known; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        # Pillow knows no direct way from premultiplied colours.
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits divided by 257 and rounded: Pillow's own conversion would clip it at 255."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"its grey values go from {values.min()} to {values.max()}; 0 to 65535 are read")
    grey = ((values + 128) // 257).astype(np.uint8)
    grey[values == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)

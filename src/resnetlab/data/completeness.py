"""Whether a file holds all of its image, where Pillow does not say: its decoders take a stream that ends in good order
for the whole image, and leave the rest black or grey.

GIF, BMP, PPM, WebP, interlaced PNG and compressed TIFF fail by themselves. Sources: PNG, W3C 2003, section 7; ITU-T
T.81, annex B (markers); libjpeg's jdhuff.c (what is missing becomes blocks of zeros: grey); TIFF 6.0, section 3.
"""

import re
import zlib
from collections.abc import Iterator
from io import BytesIO

import numpy as np
from PIL import Image, ImageFile

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Of each colour type of PNG."""
PART = 1 << 16
"""Bytes that are unpacked at a time, only to be counted."""
STRIP = 64
"""Rows that are compared at a time."""
JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
END_OF_IMAGE, PROGRESSIVE, SCAN = 0xD9, 0xC2, 0xDA
FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of a frame's head, which says the size; the others are of tables."""
PADDING = bytes(range(1, 255)) * 2
"""Put behind the last scan. A decoder that has all of the image passes over it, one that has not decodes it."""


def missing_pixels(image: Image.Image, data: bytes, *, thorough: bool) -> str:
    """In words what is missing of a loaded image; nothing where it is whole. ``data`` is its file.

    A file is read again only where the end of its image looks like what a decoder leaves. A progressive JPEG does not
    show it there: it is decoded twice where the check is ``thorough``.
    """
    if image.format == "PNG":
        return _png(image, data)
    if image.format in ("JPEG", "MPO"):
        return _jpeg(image, data, thorough)
    return ""


def missing_strips(image: ImageFile.ImageFile) -> str:
    """In words what an opened TIFF without compression lacks, before it is loaded: Pillow would read what lies behind
    a strip that is too short, and leave black what has none."""
    if image.format != "TIFF" or image.info.get("compression") not in (None, "raw") or not image.tile:
        return ""
    tags = image.tag_v2  # type: ignore[attr-defined]  # of TIFF images
    # As they are in the file: Pillow has turned its own by the orientation.
    width, height = tags[256], tags[257]
    bottom = max((tile.extents[3] for tile in image.tile if tile.extents), default=height)
    if bottom < height:
        return f"it has strips for {bottom} of its {height} rows"
    counts = tags.get(279) or tags.get(325) or ()
    bits = tags.get(258, (1,))
    row = width * (sum(bits) if len(bits) > 1 else bits[0] * tags.get(277, 1))
    held, needed = sum(counts), height * -(-row // 8)
    return f"its strips have {held} of {needed} bytes" if counts and all(counts) and held < needed else ""


def _png(image: Image.Image, data: bytes) -> str:
    last = image.crop((0, image.height - 1, image.width, image.height))
    if data[28] or any(last.tobytes()):  # interlaced: that Pillow finds
        return ""
    # A row begins with the byte that names its filter.
    needed = image.height * (1 + -(-image.width * data[24] * SAMPLES[data[25]] // 8))
    inflate, held = zlib.decompressobj(), 0
    for content in _image_data(data):
        while content and held < needed:
            held += len(inflate.decompress(content, PART))
            content = inflate.unconsumed_tail
    if held >= needed:
        return ""
    return f"its data end early: {held:,} of {needed:,} bytes"


def _image_data(data: bytes) -> Iterator[bytes]:
    """What the chunks IDAT hold."""
    place = 8
    while place + 8 <= len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            yield data[place + 8 : place + 8 + size]
        place += 12 + size


def _jpeg(image: Image.Image, data: bytes, thorough: bool) -> str:
    end, progressive = _end_of_jpeg(data)
    corner = np.asarray(image.crop((max(0, image.width - 4), image.height - 1, image.width, image.height)))
    grey = (corner == 128).all() if image.mode != "CMYK" else (corner == corner[:, :1]).all()
    if end is None or not (grey or (progressive and thorough)):
        return ""
    padded = data[:end] + PADDING + data[end:]
    if progressive:
        # Its last scan may hold fine detail alone.
        again = _open_jpeg(padded, round(Image.open(BytesIO(data), formats=["JPEG"]).width / image.width))
        # Of two scales there is nothing to compare.
        whole = again.size != image.size or _are_equal(again, image)
    else:
        whole = _are_equal(_open_jpeg(padded, 8), _open_jpeg(data, 8))
    if whole:
        return ""
    return "its data end early: what is missing of its last scan would be grey"


def _open_jpeg(data: bytes, scale: int) -> Image.Image:
    """The image at one over ``scale`` of its size, which takes as much less memory."""
    image = Image.open(BytesIO(data), formats=["JPEG"])
    if scale > 1:
        image.draft(None, (max(1, image.width // scale), max(1, image.height // scale)))
    return image


def _are_equal(one: Image.Image, other: Image.Image) -> bool:
    """Whether all pixels are, compared in strips, so that no image is copied."""
    strips = ((0, top, one.width, min(top + STRIP, one.height)) for top in range(0, one.height, STRIP))
    return all(np.array_equal(np.asarray(one.crop(strip)), np.asarray(other.crop(strip))) for strip in strips)


def _markers(data: bytes) -> Iterator[re.Match[bytes]]:
    """The markers of a JPEG behind its first, up to the last whole one; what a marker says follows it."""
    place = 2
    while found := JPEG_MARKER.search(data, place):
        yield found
        # Behind the head of a scan its data follow, up to the next marker.
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")


def _end_of_jpeg(data: bytes) -> tuple[int | None, bool]:
    """Where the first image of the file ends, at its marker EOI, and whether it is progressive."""
    progressive = False
    for found in _markers(data):
        marker = data[found.end() - 1]
        if marker == END_OF_IMAGE:
            return found.start(), progressive
        progressive = progressive or marker == PROGRESSIVE
    return None, progressive


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Height and width by the first head of a frame in a JPEG; None where there is none before the first scan."""
    for found in _markers(data):
        marker, place = data[found.end() - 1], found.end()
        if marker in FRAMES:
            size = data[place + 3 : place + 7]
            return (int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")) if len(size) == 4 else None
        if marker in (SCAN, END_OF_IMAGE):
            return None
    return None

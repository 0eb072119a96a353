"""Files whose image ends early, made by hand for every format, beside whole ones as controls."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.data.config import DecodeConfig
from resnetlab.data.decode import decode, read_image
from resnetlab.data.sources import load_data

RNG = np.random.default_rng(0)
SIDE = 64
PIXELS = RNG.integers(1, 256, (SIDE, SIDE, 3), dtype=np.uint8)
PHOTO = np.asarray(Image.fromarray(PIXELS[:8, :8]).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows: bytes, width: int, height: int, *, depth=8, colour=2, interlaced=0, key: bytes = b"") -> bytes:
    """A PNG in good order, whatever its rows are."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    body = zlib.compress(rows)
    parts = [chunk(b"IHDR", head), *([chunk(b"tRNS", key)] if key else [])]
    parts += [chunk(b"IDAT", body[:50]), chunk(b"IDAT", body[50:]), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def rows_of(pixels: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def adam7(pixels: np.ndarray) -> bytes:
    steps = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [pixels[top::down, left::across] for top, left, down, across in steps]
    return b"".join(rows_of(part) for part in parts if part.size)


def saved(form: str, pixels=PHOTO, mode="RGB", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


def jpeg(share: float, **options) -> bytes:
    """A JPEG whose last scan is cut, and closed."""
    whole = saved("JPEG", PIXELS, **options)
    return whole[: int(share * (len(whole) - 2))] + b"\xff\xd9"


def gif(count: int) -> bytes:
    """As many pixels in codes of 9 bits, which a clear code every 200 pixels keeps from growing."""
    values = PIXELS[..., 0].ravel()[:count]
    codes = [code for at in range(0, max(1, count), 200) for code in (256, *values[at : at + 200].tolist())] + [257]
    bits = "".join(format(code, "09b")[::-1] for code in codes)
    content = bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))
    blocks = b"".join(
        bytes([len(part)]) + part for part in (content[at : at + 255] for at in range(0, len(content), 255))
    )
    palette = bytes(value for level in range(256) for value in (level,) * 3)
    head = b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0xF7, 0, 0) + palette
    return head + b"," + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0) + b"\x08" + blocks + b"\0;"


def bmp(rows: int) -> bytes:
    """Runs of one colour, and the code for the end of the image."""
    body = b"".join(bytes((SIDE, 7)) + b"\0\0" for _ in range(rows)) + b"\0\1"
    palette, start = bytes(1024), 14 + 40 + 1024
    head = b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start)
    return head + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 8, 1, len(body), 1, 1, 256, 0) + palette + body


def tiff(strips: int, *, share: float = 1, deflate: bool = False) -> bytes:
    """Grey in strips of 16 rows, each with a share of its bytes; behind them lies something else."""
    parts = [PIXELS[16 * at : 16 * at + 16, :, 0].tobytes() for at in range(strips)]
    parts = [part[: int(share * len(part))] for part in parts]
    parts = [zlib.compress(part) if deflate else part for part in parts]
    starts = np.cumsum([8, *map(len, parts)]).tolist()
    body = b"".join(parts) + b"\x55" * 8000
    lists = []
    for numbers in (starts[:-1], [len(part) for part in parts]):
        lists.append(8 + len(body) if strips > 1 else numbers[0])
        body += struct.pack(f"<{strips}I", *numbers) if strips > 1 else b""
    kind = 8 if deflate else 1
    tags = [(256, 4, 1, SIDE), (257, 4, 1, SIDE), (258, 3, 1, 8), (259, 3, 1, kind), (262, 3, 1, 1)]
    tags += [(273, 4, strips, lists[0]), (277, 3, 1, 1), (278, 4, 1, 16), (279, 4, strips, lists[1])]
    entries = b"".join(
        struct.pack("<HHI", tag, form, n) + struct.pack("<HH" if form == 3 else "<I", *((v, 0) if form == 3 else (v,)))
        for tag, form, n, v in tags
    )
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + bytes(4)


def webp(share: float, **options) -> bytes:
    """The one chunk of pixels shortened, its sizes made right."""
    whole = saved("WEBP", PIXELS, **options)
    content = whole[20 : 20 + int(share * (len(whole) - 20)) // 2 * 2]
    return b"RIFF" + struct.pack("<I", 12 + len(content)) + whole[8:16] + struct.pack("<I", len(content)) + content


EARLY = {
    "PNG, no row": png(rows_of(PIXELS[:0]), SIDE, SIDE),
    "PNG, few rows": png(rows_of(PIXELS[:3]), SIDE, SIDE),
    "PNG, one row less": png(rows_of(PIXELS[:63]), SIDE, SIDE),
    "PNG, half a row less": png(rows_of(PIXELS)[:-90], SIDE, SIDE),
    "PNG, grey": png(rows_of(PIXELS[:40, :, 0]), SIDE, SIDE, colour=0),
    "PNG, 4 bits": png(rows_of(PIXELS[:40, :32, 0]), SIDE, SIDE, depth=4, colour=0),
    "PNG, colour and alpha of 16 bits": png(rows_of(PIXELS[:8].repeat(3, 1)), 72, SIDE, depth=16, colour=6),
    "PNG, interlaced": png(adam7(PIXELS)[:-2000], SIDE, SIDE, interlaced=1),
    "PNG, interlaced, last byte": png(adam7(PIXELS)[:-1], SIDE, SIDE, interlaced=1),
    "PNG, interlaced, last row whole": png(adam7(PIXELS[:63])[:-200], SIDE, 63, interlaced=1),
    "JPEG": jpeg(0.6),
    "JPEG, last part": jpeg(0.85),
    "JPEG, grey": jpeg(0.6, mode="L"),
    "JPEG, CMYK": jpeg(0.6, mode="CMYK"),
    "JPEG, 4:4:4": jpeg(0.6, subsampling=0, quality=95),
    "JPEG, restarts": jpeg(0.6, restart_marker_rows=1),
    "JPEG, progressive": jpeg(0.3, progressive=True),
    "JPEG, progressive, last scan": jpeg(0.97, progressive=True),
    "JPEG, odd": saved("JPEG", PIXELS.repeat(4, 0).repeat(5, 1)[:203, :301])[:5000] + b"\xff\xd9",
    "GIF": gif(20 * SIDE),
    "GIF, one pixel less": gif(SIDE**2 - 1),
    "BMP": saved("BMP")[:-600],
    "BMP, run lengths": bmp(20),
    "PPM": saved("PPM")[:-300],
    "PPM, plain": b"P3\n4 4\n255\n" + b"1 2 3 " * 7,
    "TIFF, fewer strips": tiff(2),
    "TIFF, short strips": tiff(4, share=0.5),
    "TIFF, fewer compressed strips": tiff(2, deflate=True),
    "TIFF, short compressed strips": tiff(4, share=0.5, deflate=True),
    "WebP": webp(0.5, quality=80),
    "WebP, lossless": webp(0.5, lossless=True),
}  # fmt: skip


@pytest.mark.parametrize("case", EARLY)
@pytest.mark.parametrize("side", [None, 16])
def test_an_image_that_ends_early_is_refused(case, side):
    with pytest.raises(Exception, match=r".") as caught:  # whatever Pillow raises
        read_image(EARLY[case], side, thorough=True)
    assert not isinstance(caught.value, (AssertionError, TypeError, IndexError))


DARK = np.zeros((SIDE, SIDE, 3), np.uint8)
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
WHOLE = {
    "PNG, black below": png(rows_of(DARK), SIDE, SIDE),
    "PNG, black 1 bit": png(rows_of(DARK[:, :8, 0]), SIDE, SIDE, depth=1, colour=0),
    "PNG, interlaced": png(adam7(PIXELS), SIDE, SIDE, interlaced=1),
    "PNG, narrow interlaced": png(adam7(PIXELS[:, :3]), 3, SIDE, interlaced=1),
    "PNG, more than it needs": png(rows_of(DARK) + b"more", SIDE, SIDE),
    "JPEG": saved("JPEG"),
    "JPEG, grey below": saved("JPEG", GREY),
    "JPEG, grey, progressive": saved("JPEG", GREY, progressive=True),
    "JPEG, grey, restarts": saved("JPEG", GREY, restart_marker_rows=1),
    "JPEG, grey, odd": saved("JPEG", np.full((203, 331, 3), 128, np.uint8)),
    "JPEG, grey, one row": saved("JPEG", np.full((1, 331, 3), 128, np.uint8)),
    "JPEG, progressive": saved("JPEG", PIXELS, progressive=True),
    "JPEG, grey CMYK": saved("JPEG", GREY, mode="CMYK"),
    "JPEG, more behind": saved("JPEG", GREY) + b"\0" * 50 + b"\xff\xd9",
    "GIF": gif(SIDE**2),
    "BMP, run lengths": bmp(SIDE),
    "TIFF": tiff(4),
    "TIFF, compressed": tiff(4, deflate=True),
    "TIFF, black and white": saved("TIFF", DARK, mode="1"),
    "TIFF, colour": saved("TIFF", DARK),
    "WebP": saved("WEBP", DARK),
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_whole_image_that_ends_alike_is_read(case):
    with Image.open(io.BytesIO(WHOLE[case])) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_image(WHOLE[case], None, thorough=True).pixels, expected)
    assert read_image(WHOLE[case], 16, thorough=True).pixels.shape == (16, 16, 3)


def test_many_rows_that_are_missing_are_found_before_training(tmp_path):
    """A properly closed stream of a few rows in a large image."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.png").write_bytes(png(rows_of(PIXELS), SIDE, SIDE))
    wide = RNG.integers(1, 256, (30, 700, 8), dtype=np.uint8)
    (tmp_path / "a" / "early.png").write_bytes(png(rows_of(wide), 700, 700, depth=16, colour=6))
    with pytest.raises(DataError, match=r"a/early\.png: its data end early: 168,030 of 3,920,700 bytes"):
        load_data(f"folder:{tmp_path}", decode=DecodeConfig(image_size=8))


@pytest.mark.parametrize(("depth", "levels"), [(1, 2), (2, 4), (4, 16), (8, 256)])
def test_the_transparent_grey_of_every_depth_is_white(depth, levels):
    values = (np.arange(256) % levels).astype(np.uint8).reshape(16, 16)
    bits = np.unpackbits(values[..., None], axis=-1)[..., -depth:].reshape(16, -1)
    for key in {0, 1, levels // 2, levels - 1}:
        content = png(rows_of(np.packbits(bits, axis=1)), 16, 16, depth=depth, colour=0, key=struct.pack(">H", key))
        expected = np.where(values == key, 255, values.astype(int) * 255 // (levels - 1))
        assert np.array_equal(decode(content, None), expected[..., None].repeat(3, -1))


def test_the_transparent_colour_of_16_bits_is_white_or_refused():
    pixels = np.array([[[1, 2, 3], [65535, 65535, 65535]], [[256, 512, 768], [0, 0, 0]]], np.uint16)
    rows = rows_of(pixels.astype(">u2"))

    def made(*key):
        return png(rows, 2, 2, depth=16, key=struct.pack(">HHH", *key))

    cut = (pixels >> 8).astype(np.uint8)
    assert np.array_equal(decode(made(65535, 65535, 65535), None), cut)  # white on white
    assert np.array_equal(decode(made(9999, 0, 0), None), cut)  # no pixel is it
    with pytest.raises(DataError, match="16 bits is transparent"):
        decode(made(256, 512, 768), None)


def test_the_transparent_colour_of_8_bits_is_white():
    content = png(rows_of(PIXELS), SIDE, SIDE, key=struct.pack(">HHH", *PIXELS[5, 5].tolist()))
    expected = PIXELS.copy()
    expected[(PIXELS[5, 5] == PIXELS).all(-1)] = 255
    assert np.array_equal(decode(content, None), expected)

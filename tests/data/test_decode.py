"""One image: compared with Pillow's own steps, with numpy, and with what a format's document says."""

import os
import struct
import subprocess
import sys
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from resnetlab.core.errors import DataError
from resnetlab.data.decode import FORMATS, MOST_PIXELS, MOST_PIXELS_HELD, crop_box, decode, pixels_said, read_image
from tests.conftest import ROOT
from tests.faults.images import encoded, seed_files

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
PHOTO = Image.fromarray(load_sample_image("china.jpg"))


def difference(one, other):
    return np.abs(one.astype(int) - other.astype(int))


def open_whole(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data))
    image.load()
    return image


def resized_middle(image: Image.Image, side: int) -> np.ndarray:
    """torchvision's Resize and CenterCrop, in Pillow's words."""
    short = min(image.size)
    resized = image.resize(tuple(side * length // short for length in image.size), Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2) for length in resized.size)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


@pytest.mark.parametrize("side", [7, 100, 224, 427, 600])
@pytest.mark.parametrize("turned", [False, True])
def test_square_is_the_middle_of_the_resized_image(side, turned):
    photo = PHOTO.transpose(Image.Transpose.ROTATE_90) if turned else PHOTO
    found, expected = decode(encoded(photo, "BMP"), side), resized_middle(photo, side)
    # Seven rows of 427 are first averaged by whole squares.
    assert difference(found, expected).max() <= (1 if side > 20 else 4)


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 2)])
def test_extreme_shapes_have_a_middle(size):
    assert decode(encoded(Image.new("RGB", size, "red"), "PNG"), 32).tolist() == [[[255, 0, 0]] * 32] * 32


def test_own_size_keeps_every_pixel():
    assert np.array_equal(decode(encoded(Image.fromarray(NOISE), "PNG"), None), NOISE)
    square = encoded(Image.fromarray(NOISE[:, :20]), "PNG")
    assert np.array_equal(read_image(square, 7, own=20).pixels, NOISE[:, :20])
    assert np.array_equal(read_image(square, 7, own=30).pixels, decode(square, 7))


@pytest.mark.parametrize(
    ("uniforms", "box"),
    [
        # A quarter of 40 000 pixels, square: 100 × 100, of 101 and 301 places the first, the last and the middle one.
        ((0.25, 0.5, 0, 0), (0, 0, 100, 100)),
        ((0.25, 0.5, 0.9999, 0.9999), (300, 0, 100, 100)),
        ((0.25, 0.5, 0, 0.5), (150, 0, 100, 100)),
        # 4/3 wide: √(10 000 · 4/3) = 115.5 by √(10 000 · 3/4) = 86.6.
        ((0.25, 1, 0.9999, 0), (0, 13, 115, 87)),
        # The whole area as a square would be 200 × 200: the rows there are, 100, and 200 of the 400 columns.
        ((1, 0.5, 0.7, 0.5), (100, 0, 200, 100)),
    ],
)
def test_crop_box_solved_by_hand(uniforms, box):
    assert crop_box(uniforms, width=400, height=100, scale=(0, 1)) == box


@given(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4), st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=300)
def test_crop_box_lies_within_the_image(uniforms, width, height):
    left, top, wide, tall = crop_box(uniforms, width, height)
    assert left >= 0
    assert top >= 0
    assert 1 <= wide <= width - left
    assert 1 <= tall <= height - top


def test_crop_boxes_have_the_areas_and_ratios_of_their_ranges():
    boxes = np.array([crop_box(uniforms, 1000, 1000, (0.08, 0.5)) for uniforms in RNG.random((4000, 4))])
    share = boxes[:, 2] * boxes[:, 3] / 1e6
    ratio = np.log(boxes[:, 2] / boxes[:, 3]) / np.log(4 / 3)
    assert share.mean() == pytest.approx(0.29, abs=0.01)
    assert (share.min(), share.max()) == (pytest.approx(0.08, abs=0.002), pytest.approx(0.5, abs=0.002))
    assert (ratio.min(), ratio.max()) == (pytest.approx(-1, abs=0.02), pytest.approx(1, abs=0.02))
    assert ratio.mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("uniforms", [(0.9, 0.2, 0.3, 0.7), (0.1, 0.9, 0.99, 0.01)])
def test_box_is_cut_and_resized_as_pillow_does_it(uniforms):
    left, top, wide, tall = crop_box(uniforms, *PHOTO.size, (0.08, 1.0))
    cut = PHOTO.crop((left, top, left + wide, top + tall)).resize((96, 96), Image.Resampling.BILINEAR)
    assert difference(decode(encoded(PHOTO, "PNG"), 96, uniforms), np.asarray(cut)).max() <= 1


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("JPEG", {})])
def test_exif_orientation_turns_every_format_alike(kind, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(NOISE), kind, exif=exif, **options)
    stored = np.asarray(open_whole(encoded(Image.fromarray(NOISE), kind, **options)))
    image = read_image(data, None)
    assert np.array_equal(image.pixels, TURNED[orientation](stored))
    assert (image.height, image.width) == image.pixels.shape[:2]


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("box", [None, (0.3, 0.1, 0.2, 0.9)])
def test_orientation_box_and_draft_agree(orientation, box):
    """A large turned JPEG gives what the same image gives that was stored upright; odd sizes leave a last column."""
    photo = PHOTO.resize((1283, 857))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = Image.fromarray(TURNED[orientation](np.asarray(photo)))
    turned = decode(encoded(photo, "JPEG", exif=exif, quality=95), 96, box)
    stored = encoded(upright, "BMP")
    assert difference(turned, decode(stored, 96, box)).mean() < 1
    wrong = decode(stored, 96, (0.3, 0.1, 0.25, 0.85) if box else (0.95, 0.5, 0, 0))
    assert difference(turned, wrong).mean() > 2


@pytest.mark.parametrize("side", [64, 100, 224])
def test_draft_differs_from_a_full_decode_by_less_than_half_a_grey_level(side):
    data = encoded(PHOTO.resize((1920, 1280), Image.Resampling.BICUBIC), "JPEG", quality=90)
    found = decode(data, side)
    assert difference(found, resized_middle(open_whole(data), side)).mean() < 0.5


def one_pixel(image: Image.Image, kind: str = "PNG", **options) -> list[int]:
    return decode(encoded(image, kind, **options), None)[0, 0].tolist()


@pytest.mark.parametrize(
    ("image", "kind", "options", "rgb"),
    [
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), "PNG", {}, [255, 255, 255]),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), "PNG", {}, [204, 204, 204]),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), "WEBP", {"lossless": True}, [204, 204, 204]),
        (Image.new("RGBA", (2, 2), (0, 0, 0, 51)), "TIFF", {}, [204, 204, 204]),
        (Image.new("LA", (2, 2), (100, 0)), "PNG", {}, [255, 255, 255]),
        (Image.new("LA", (2, 2), (100, 255)), "PNG", {}, [100, 100, 100]),
        (Image.new("L", (2, 2), 77), "PNG", {}, [77, 77, 77]),
        (Image.new("L", (2, 2), 77), "PNG", {"transparency": 77}, [255, 255, 255]),
        (Image.new("RGB", (2, 2), (1, 2, 3)), "PNG", {"transparency": (1, 2, 3)}, [255, 255, 255]),
        (Image.new("1", (2, 2), 1), "PNG", {}, [255, 255, 255]),
        (Image.new("1", (2, 2), 0), "BMP", {}, [0, 0, 0]),
        (Image.new("1", (2, 2), 0), "PPM", {}, [0, 0, 0]),
        (Image.new("CMYK", (2, 2), (0, 255, 255, 0)), "TIFF", {}, [255, 0, 0]),
        (Image.new("RGB", (2, 2), (0, 99, 0)).quantize(4), "PNG", {}, [0, 99, 0]),
        (Image.new("RGB", (2, 2), (0, 99, 0)).quantize(4), "PNG", {"transparency": 0}, [255, 255, 255]),
        (Image.new("RGB", (2, 2), (0, 99, 0)).quantize(4), "PNG", {"transparency": b"\x33"}, [204, 224, 204]),
        (Image.new("RGB", (2, 2), (0, 99, 0)).quantize(4), "GIF", {"transparency": 0}, [255, 255, 255]),
        (Image.new("RGB", (2, 2), (0, 99, 0)).quantize(4), "TIFF", {}, [0, 99, 0]),
    ],
)
def test_every_mode_becomes_rgb_on_white(image, kind, options, rgb):
    assert difference(np.array(one_pixel(image, kind, **options)), np.array(rgb)).max() <= 1


def test_cmyk_jpeg_is_not_inverted():
    assert (
        difference(
            np.array(one_pixel(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")), np.array([255, 0, 0])
        ).max()
        < 9
    )


@pytest.mark.parametrize(("mode", "expected"), [("La", 255 - 51 + 20), ("RGBa", 255 - 51 + 20)])
def test_premultiplied_colours_lie_on_white(mode, expected):
    from resnetlab.data.decode import _to_rgb

    colour = (20,) * (len(mode) - 1) + (51,)
    assert difference(np.asarray(_to_rgb(Image.new(mode, (1, 1), colour))), np.array([expected])).max() <= 1


LEVELS = np.array([[0, 128, 129, 257, 40000, 65535]], np.uint16)


def pgm(values: np.ndarray) -> bytes:
    return b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()


def big_endian_tiff(values: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()).save(stream, "TIFF")
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encoded(Image.fromarray(LEVELS), "PNG"),
        encoded(Image.fromarray(LEVELS), "TIFF"),
        big_endian_tiff(LEVELS),
        pgm(LEVELS),
        encoded(Image.fromarray(LEVELS.astype(np.int32)), "TIFF"),
    ],
    ids=["PNG", "TIFF", "big-endian TIFF", "PGM", "32-bit TIFF"],
)
def test_sixteen_bit_grey_is_divided_by_257(data):
    # Control: Pillow clips, so that 257 and 40000 are both white.
    assert np.asarray(open_whole(data).convert("I").convert("L")).tolist()[0][3:5] == [255, 255]
    assert decode(data, None)[0].tolist() == [[n] * 3 for n in (0, 0, 1, 1, 156, 255)]


def test_sixteen_bit_grey_with_a_transparent_level_has_it_white():
    data = encoded(Image.fromarray(LEVELS), "PNG")
    start = data.index(b"IDAT") - 4
    chunk = b"tRNS" + struct.pack(">H", 257)
    data = data[:start] + struct.pack(">I", 2) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[start:]
    assert decode(data, None)[0, :, 0].tolist() == [0, 0, 1, 255, 156, 255]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (2, 2), 0.5), "floating-point"),
        (Image.new("I", (2, 2), 70000), "from 70000 to 70000"),
        (Image.new("I", (2, 2), -1), "from -1 to -1"),
    ],
)
def test_pixels_without_a_known_white_are_refused(image, message):
    with pytest.raises(DataError, match=message):
        decode(encoded(image, "TIFF"), None)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(BytesIO(data)).n_frames == 2
    assert difference(decode(data, None), np.array([255, 0, 0])).max() < 9


def test_content_decides_not_the_suffix(tmp_path):
    path = tmp_path / "image.txt"
    path.write_bytes(encoded(Image.fromarray(NOISE), "PNG"))
    assert np.array_equal(decode(path, None), NOISE)


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PDF", "JPEG2000", "SGI"])
def test_other_formats_are_refused(kind):
    with pytest.raises(DataError, match="no image in one of the formats JPEG, PNG"):
        decode(encoded(Image.fromarray(NOISE), kind), None)


@pytest.mark.parametrize("number", range(len(seed_files())))
def test_a_cut_file_is_refused(number):
    whole = seed_files()[number]
    assert decode(whole, 8).shape == (8, 8, 3)
    for length in (0, 1, 10, len(whole) // 2):
        with pytest.raises(DataError, match="the image cannot be read: "):
            decode(whole[:length], 8)


def test_lossy_formats_are_told_apart():
    rgb = Image.fromarray(NOISE)
    moving = {"save_all": True, "append_images": [rgb.rotate(180)]}
    for kind, options, lossy in (
        ("JPEG", {}, True),
        ("PNG", {}, False),
        ("WEBP", {}, True),
        ("WEBP", {"lossless": True}, False),
        ("WEBP", {"exif": Image.Exif(), **moving}, True),
        ("WEBP", {"lossless": True, **moving}, False),
        ("TIFF", {"compression": "jpeg"}, True),
        ("TIFF", {"compression": "tiff_lzw"}, False),
    ):
        assert read_image(encoded(rgb, kind, **options), None).lossy is lossy, (kind, options)


def test_message_names_the_file_on_one_line(tmp_path):
    path = tmp_path / "two\nlines \udcff.png"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"two\\nlines \\udcff.png cannot be read") as caught:
        decode(path, None)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="No such file"):
        decode(tmp_path / "none", None)
    with pytest.raises(DataError, match="image 7 of x cannot be read"):
        decode(b"", None, name="image 7 of x")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is no file"):
        decode(tmp_path / "pipe", None)


def test_odd_metadata_warns_nobody_and_spoils_nothing():
    data = bytearray(encoded(Image.new("RGB", (4, 4)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09broken"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(bytes(data), None).shape == (4, 4, 3)


def png(width: int, height: int, depth: int, colour: int, lines: bytes = b"") -> bytes:
    """A PNG file by hand, since Pillow writes no 16-bit colours and no head that lies."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 1)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(60000, 60000), (10000, 10000), (7072, 7072), (2**31 - 1, 1), (0, 5)])
def test_a_head_that_announces_too_much_is_refused_at_once(size):
    """Before a pixel is decoded: the file has none, which would be another message."""
    with pytest.raises(DataError, match=r"too many pixels|pixels; 1 to|no image"):
        decode(png(*size, 8, 2), 8)
    with pytest.raises(DataError, match="truncated"):
        decode(png(7000, 7000, 8, 2), 8)


def test_formats_that_take_more_memory_have_fewer_pixels():
    for kind, options in (
        ("WEBP", {"method": 0}),
        ("TIFF", {"compression": "packbits"}),
        ("JPEG", {"progressive": True}),
    ):
        with pytest.raises(DataError, match=f"1 to {MOST_PIXELS_HELD:,} are read"):
            decode(encoded(Image.new("L", (5001, 5000)), kind, **options), 8)


MEASURE = """
import sys
from pathlib import Path
from resnetlab.data.decode import decode
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
start = peak()
shape = decode(Path(sys.argv[1]), int(sys.argv[2]) or None).shape
print(shape[0], start, peak())
"""


def largest(kind: str) -> bytes:
    """Files of a few megabytes at most with as many pixels as are read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    width, height = 7071, 7070
    assert 49_900_000 < width * height <= MOST_PIXELS
    if kind == "png16":
        return png(width, height, 16, 6, bytes(height * (1 + 8 * width)))
    if kind == "png":
        return encoded(Image.new("RGBA", (width, height)), "PNG", exif=exif, compress_level=1)
    if kind == "jpeg":
        return encoded(Image.new("CMYK", (width, height)), "JPEG")
    options = {"progressive": {"progressive": True, "subsampling": 0}, "webp": {"lossless": True, "method": 0}}
    tiff = {"compression": "tiff_lzw", "tiffinfo": {278: 5000, 274: 6}}
    mode, name = {"progressive": ("CMYK", "JPEG"), "webp": ("RGBA", "WEBP"), "tiff": ("RGBA", "TIFF")}[kind]
    return encoded(Image.new(mode, (5000, 5000)), name, **options.get(kind, tiff))


SLOW = pytest.mark.slow
KINDS = ["png", *(pytest.param(kind, marks=SLOW) for kind in ("png16", "jpeg", "progressive", "webp", "tiff"))]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [224, pytest.param(2000, marks=SLOW), pytest.param(0, marks=SLOW)])
def test_largest_images_decode_below_500_mebibytes(tmp_path, kind, side):
    path = tmp_path / "large"
    path.write_bytes(largest(kind))
    assert path.stat().st_size < 10_000_000
    words = [sys.executable, "-c", MEASURE, path, str(side)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    rows, start, peak = map(float, done.stdout.split())
    assert rows >= (side or 5000)
    assert start < peak < 500


def test_head_says_how_many_pixels_an_image_has():
    """As Pillow finds them, in whole files and in damaged ones; nothing of formats whose heads are not read."""
    rng, told = np.random.default_rng(0), 0
    for content in seed_files():
        for trial in range(40):
            data = bytearray(content)
            for place in rng.integers(0, len(data), 0 if trial == 0 else 3):
                data[place] = rng.integers(256)
            said = pixels_said(bytes(data))
            try:
                opened = Image.open(BytesIO(data), formats=FORMATS)
            except Exception:  # Pillow refuses it, so that it is not decoded
                continue
            if opened.format in ("PNG", "JPEG", "MPO"):
                assert said == opened.width * opened.height
                told += 1
            else:
                assert said is None
    assert told > 200


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"\xff\xd8\xff\xc0\0\x11\x08\0", b"BM" * 40]
)
def test_head_that_is_cut_says_nothing(content):
    assert pixels_said(content) is None

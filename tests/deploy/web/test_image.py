"""``image.js`` beside the decoder: the same pixels of the same image."""

from base64 import b64decode, b64encode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.core.randomness import generator
from resnetlab.data.decode import TURNS, decode
from resnetlab.deploy.preprocessing import Preprocessing

SIZES = [
    # width, height, side
    (32, 32, 32),
    (28, 28, 32),
    (33, 47, 32),
    (47, 33, 8),
    (128, 128, 32),
    (301, 203, 32),
    (97, 640, 16),
    (3, 5, 8),
    (1, 1, 4),
    (700, 523, 28),
    (2100, 31, 24),
    (1100, 1203, 32),
]


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes with noise on top: ``(H, W, 3)``."""
    draw = generator(seed, "photo")
    coarse = Image.fromarray(draw.integers(0, 256, (9, 7, 3), np.uint8)).resize((width, height), 3)
    return np.clip(np.asarray(coarse) + draw.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", orientation: int = 1, **options: object) -> bytes:
    stream, exif = BytesIO(), Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(stream, kind, exif=exif, **options)
    return stream.getvalue()


def case(pixels: np.ndarray, side: int, turn=(0, 0, 0), channels: int = 3) -> dict:
    return {
        "rgb": b64encode(pixels.tobytes()).decode(),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "side": side,
        "turn": turn,
        "channels": channels,
    }


def test_resize_and_crop_are_the_decoders_to_the_bit(compute):
    photos = [photo(width, height) for width, height, _ in SIZES]
    found = compute(images=[case(pixels, side) for pixels, (_, _, side) in zip(photos, SIZES, strict=True)])["squares"]
    for square, pixels, size in zip(found, photos, SIZES, strict=True):
        expected = decode(encoded(pixels), size[2])
        assert np.abs(np.reshape(square, expected.shape) - expected.astype(int)).max() == 0, size


def test_every_turn_is_the_decoders(compute):
    pixels = photo(61, 90)
    found = compute(images=[case(pixels, 16, turn) for turn in TURNS.values()])["squares"]
    for square, orientation in zip(found, TURNS, strict=True):
        assert np.array_equal(np.reshape(square, (16, 16, 3)), decode(encoded(pixels, "PNG", orientation), 16))


def test_grey_is_the_preprocessings(compute):
    pixels = photo(40, 50)
    preprocessing = Preprocessing(side=16, channels=1, white=255, mean=(0.0,), std=(1.0,))
    (found,) = compute(images=[case(pixels, 16, channels=1)])["squares"]
    assert np.array_equal(np.reshape(found, (16, 16, 1)), preprocessing.pixels(encoded(pixels)))


def test_large_jpeg_is_within_a_few_levels_of_what_libjpeg_shrinks(compute):
    contents = [encoded(photo(*size), "JPEG", quality=90) for size in ((640, 480), (500, 1001), (333, 217))]
    found = compute(images=[case(decode(content, None), 32) for content in contents])["squares"]
    for square, content in zip(found, contents, strict=True):
        difference = np.abs(np.reshape(square, (32, 32, 3)) - decode(content, 32).astype(int))
        assert 0 < difference.mean() < 0.5
        assert difference.max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_orientation_is_read_and_taken_out(compute, kind):
    contents = [encoded(photo(20, 30), kind, orientation) for orientation in (*TURNS, 1)]
    contents.append(contents[0][:40])
    found = compute(files=[b64encode(content).decode() for content in contents])["turns"]
    assert [tuple(file["turn"]) for file in found] == [*TURNS.values(), (0, 0, 0), (0, 0, 0)]
    for file, content in zip(found[:-1], contents[:-1], strict=True):
        with Image.open(BytesIO(b64decode(file["bytes"]))) as bare, Image.open(BytesIO(content)) as image:
            assert bare.getexif().get(0x0112, 1) == 1
            assert np.array_equal(np.asarray(bare), np.asarray(image))

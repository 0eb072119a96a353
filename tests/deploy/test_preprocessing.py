"""From an image to pixels: every kind of image gives those of the file, and what says too little is refused."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.decode import decode
from resnetlab.deploy.preprocessing import Prediction, Preprocessing, predictions

COLOUR = Preprocessing(side=8, channels=3, white=255, mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0))
GREY = Preprocessing(side=8, channels=1, white=16, mean=(5.0,), std=(6.0,))


@pytest.fixture
def photo(tmp_path):
    """A photograph of 30×20 pixels with a turn of 90° in its EXIF."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", quality=95, exif=exif)
    return tmp_path / "photo.jpg"


def test_path_bytes_and_image_give_the_same_pixels(photo):
    expected = decode(photo, 8)
    with Image.open(photo) as image:
        assert np.array_equal(COLOUR.pixels(image), expected)
    for given in (photo, str(photo), photo.read_bytes()):
        assert np.array_equal(COLOUR.pixels(given), expected)
    with Image.open(photo) as image:
        image.getexif().clear()
        assert not np.array_equal(COLOUR.pixels(image), expected), "a turn that is ignored would not be seen"


def test_an_array_is_resized_as_the_file_of_the_same_pixels():
    values = np.random.default_rng(1).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    stream = BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    assert np.array_equal(COLOUR.pixels(values), decode(stream.getvalue(), 8))
    assert np.array_equal(COLOUR.pixels(values / 255, white=1), decode(stream.getvalue(), 8))


def test_colour_becomes_grey_and_grey_colour():
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[:, :, 1] = 200
    assert np.unique(GREY.pixels(Image.fromarray(colour))).tolist() == [round(200 * 38470 / 65536)]
    grey = np.full((8, 8), 77, np.uint8)
    assert np.unique(GREY.pixels(Image.fromarray(grey))).tolist() == [77]
    assert np.array_equal(COLOUR.pixels(grey), np.full((8, 8, 3), 77))


def test_levels_of_the_digits_come_back_within_half_a_grey_level():
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) % 17
    pixels = GREY.pixels(levels, white=16)
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert np.abs(pixels[:, :, 0] * (16 / 255) - levels).max() <= 8 / 255


@pytest.mark.parametrize(
    ("values", "white", "message"),
    [
        (np.zeros((8, 8)), None, "float64 does not say which value is white.*16 as in the training"),
        (np.zeros((8, 8), np.uint8), None, "uint8 does not say which value is white"),
        (np.full((8, 8), 17), 16, "from 17 to 17 does not lie between 0, black, and white=16"),
        (np.full((8, 8), -1.0), 1, "from -1 to -1"),
        (np.full((8, 8), np.nan), 1, "from nan to nan"),
        (np.zeros((8, 8, 2)), 1, r"shape \(8, 8, 2\) is no image here; give \(H, W\)"),
        (np.zeros((0, 8)), 1, r"shape \(0, 8, 1\) is no image"),
    ],
)
def test_an_array_that_says_too_little_or_wrong_is_refused(values, white, message):
    with pytest.raises(DataError, match=message):
        GREY.pixels(values, white)


def test_what_is_no_image_file_is_refused(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    for given in (tmp_path / "bad.png", tmp_path / "missing.png", b"no image"):
        with pytest.raises(DataError, match="cannot be read"):
            COLOUR.pixels(given)


def test_channels_that_no_file_has_come_as_arrays():
    five = Preprocessing(side=4, channels=5, white=255, mean=(0.0,) * 5, std=(1.0,) * 5)
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 5), dtype=np.uint8)
    assert np.array_equal(five.pixels(values), values)
    with pytest.raises(DataError, match=r"give arrays \(4, 4, 5\)"):
        five.pixels(b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"side": 0}, "side=0"), ({"white": 0}, "white=0"), ({"std": (0.0,)}, "std"), ({"mean": (1.0, 2.0)}, "mean")],
)
def test_numbers_that_make_no_image_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**{"side": 8, "channels": 1, "white": 16, "mean": (5.0,), "std": (6.0,)} | change)


def test_mean_and_std_in_units_of_pixels():
    assert GREY.mean_of_pixels == pytest.approx((5 * 255 / 16,))
    assert GREY.std_of_pixels == pytest.approx((6 * 255 / 16,))
    odd = Preprocessing(side=8, channels=1, white=255, mean=(0.1 + 0.2,), std=(1 / 3,))
    assert (odd.mean_of_pixels, odd.std_of_pixels) == (odd.mean, odd.std), "to the bit where white is 255"


def test_predictions_are_the_softmax_solved_by_hand():
    logits = np.log(np.array([[1, 4, 5], [2, 2, 6]], np.float32))
    first, second = predictions(logits, "abc", 2)
    assert first.classes == ("c", "b")
    assert first.probabilities == pytest.approx((0.5, 0.4))
    assert (second.classes, second.answer) == (("c", "a"), "c"), "of equal ones the lower class first"
    assert str(first) == "c 50.0%, b 40.0%"
    assert len(predictions(logits, "abc", 9)[0].classes) == 3


def test_large_logits_do_not_overflow_and_a_nan_is_no_answer():
    logits = np.array([[3e4, 0], [np.nan, 1], [np.inf, 0]], np.float32)
    sure, *without = predictions(logits, "ab", 1)
    assert sure == Prediction(("a",), (1.0,))
    assert without == [Prediction((), ())] * 2
    assert without[0].answer is None


def test_logits_of_other_classes_and_no_class_are_refused():
    with pytest.raises(ConfigError, match="do not fit the 2 classes"):
        predictions(np.zeros((1, 3), np.float32), "ab", 1)
    with pytest.raises(ConfigError, match="top=0"):
        predictions(np.zeros((1, 2), np.float32), "ab", 0)

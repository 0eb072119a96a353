"""Near copies: found after what people do to an image, and not among images that merely resemble each other."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from resnetlab.data import similarity
from resnetlab.data.similarity import near_pairs, thumbnails
from resnetlab.data.sources import load_data

RNG = np.random.default_rng(0)
COARSE = RNG.integers(0, 256, (60, 12, 12, 3), dtype=np.uint8)
PHOTOS = [Image.fromarray(coarse).resize((96, 96), Image.Resampling.BICUBIC) for coarse in COARSE]


def hashes(images) -> torch.Tensor:
    arrays = np.stack([np.asarray(image.resize((96, 96))) for image in images])
    return thumbnails(torch.from_numpy(arrays).permute(0, 3, 1, 2))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


CHANGES = {
    "JPEG 90": lambda image: compressed(image, 90),
    "JPEG 20": lambda image: compressed(image, 20),
    "half the size": lambda image: image.resize((48, 48)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "a pixel cut off each side": lambda image: image.crop((1, 1, 95, 95)),
    "noise": lambda image: Image.fromarray(
        (np.asarray(image) // 2 + RNG.integers(0, 16, (96, 96, 3))).astype(np.uint8)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_image_is_found_after_a_change(change):
    pairs = near_pairs(hashes(PHOTOS), hashes([CHANGES[change](image) for image in PHOTOS[5:25]]))
    assert pairs == [(number + 5, number) for number in range(20)]


def test_other_images_are_none():
    assert near_pairs(hashes(PHOTOS[:30]), hashes(PHOTOS[30:])) == []
    flat = torch.full((3, 1, 20, 20), 7, dtype=torch.uint8)
    assert near_pairs(thumbnails(flat), thumbnails(flat)) == []


def test_images_that_resemble_each_other_are_few_of_them():
    """Every digit has one like it; it takes more to be a copy."""
    data = load_data("digits")
    train, test = thumbnails(data.train.images), thumbnails(data.test.images)
    assert len(near_pairs(train, test)) <= 3
    assert near_pairs(train, train[:40]) == [(number, number) for number in range(40)]


def test_parts_in_which_hashes_are_compared_change_nothing(monkeypatch):
    earlier, later = hashes(PHOTOS), hashes([compressed(image, 50) for image in PHOTOS])
    expected = near_pairs(earlier, later)
    monkeypatch.setattr(similarity, "ROWS", 1)
    monkeypatch.setattr(similarity.torch, "split", lambda tensor, _: [tensor[:7], tensor[7:8], tensor[8:]])
    assert near_pairs(earlier, later) == expected == [(number, number) for number in range(60)]


def test_one_image_alone_has_no_second():
    assert near_pairs(hashes(PHOTOS[:1]), hashes([compressed(PHOTOS[0], 60), PHOTOS[3]])) == [(0, 0)]


def test_small_images_keep_their_own_size():
    assert thumbnails(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)).shape == (2, 64)
    assert thumbnails(torch.zeros(2, 1, 40, 40, dtype=torch.uint8)).shape == (2, 256)

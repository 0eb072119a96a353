"""Digits, arrays, sources and batches."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.augmentation import Augmentation
from resnetlab.data.config import AugmentConfig
from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.loader import Loader
from resnetlab.data.sources import load_data
from resnetlab.data.transforms import draw_offsets
from tests.conftest import make_data


def test_digits_split_is_stratified_whole_and_fixed_by_its_seed():
    data = load_data("digits")
    assert (len(data.train), len(data.test)) == (1437, 360)
    shares = [torch.bincount(split.labels) / len(split) for split in (data.train, data.test)]
    assert_close(shares[0], shares[1], atol=0.003, rtol=0)
    found = torch.cat([data.train.images, data.test.images]).flatten(1).numpy()
    original = load_digits().images.reshape(-1, 64)
    assert np.array_equal(np.sort(found, axis=0), np.sort(original, axis=0))
    assert load_data("digits").fingerprint == data.fingerprint
    assert load_data("digits", split_seed=1).fingerprint["sha256"] != data.fingerprint["sha256"]


def test_normalisation_uses_the_training_images_alone():
    data = make_data()
    changed = ImageData(
        source="made",
        train=data.train,
        test=Split(images=data.test.images * 0, labels=data.test.labels),
        classes=data.classes,
    )
    assert changed.normalisation == data.normalisation
    pixels = data.normalisation.on(torch.device("cpu"))(data.train.images)
    assert pixels.mean().item() == pytest.approx(0, abs=1e-6)
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_normalisation_is_by_channel_and_leaves_a_constant_channel_finite():
    images = torch.stack([torch.full((5, 4, 4), 7), torch.arange(80).reshape(5, 4, 4)], dim=1).to(torch.uint8)
    split = Split(images=images, labels=torch.zeros(5, dtype=torch.int64))
    data = ImageData(source="made", train=split, test=split, classes=("a",))
    pixels = data.normalisation.on(torch.device("cpu"))(images)
    assert not pixels[:, 0].any()
    assert pixels[:, 1].std(correction=0).item() == pytest.approx(1, abs=1e-6)


def test_normalisation_changes_no_input():
    data = make_data()
    floats = data.train.images.to(torch.float32)
    before = floats.clone()
    data.normalisation.on(torch.device("cpu"))(floats)
    assert torch.equal(floats, before)


def test_fingerprint_sees_one_changed_pixel():
    data, other = make_data(), make_data()
    other.train.images[3, 0, 2, 2] ^= 1
    assert data.fingerprint["sha256"] != other.fingerprint["sha256"]


@pytest.mark.parametrize(
    ("source", "message"), [("digit", "did you mean 'digits'"), ("mnist", "known:"), ("idx:", "names no folder")]
)
def test_unknown_source_names_the_known_ones(source, message):
    with pytest.raises(ConfigError, match=message):
        load_data(source)


def test_a_set_that_no_classifier_can_learn_is_refused(tmp_path):
    from tests.data.test_idx import NAMES, idx

    for images, labels in ((1, [0]), (4, [0, 0, 0, 0])):
        for name in NAMES:
            array = np.zeros((images, 4, 4), np.uint8) if "images" in name else np.array(labels, np.uint8)
            (tmp_path / name).write_bytes(idx(array))
        with pytest.raises(DataError, match="at least two of each"):
            load_data(f"idx:{tmp_path}")


def loader(batch_size: int = 10, n: int = 96) -> Loader:
    data = make_data(train=n)
    return Loader(data.train, data.normalisation, batch_size)


def test_order_is_a_function_of_seed_and_epoch():
    def labels(seed: int, epoch: int) -> list[int]:
        return [int(x) for _, y in loader().shuffled(seed, epoch) for x in y]

    assert labels(0, 1) == labels(0, 1)
    assert labels(0, 1) != labels(0, 2)
    assert labels(0, 1) != labels(1, 1)


def test_training_pass_gives_every_sample_at_most_once_and_no_incomplete_batch():
    data = make_data()
    batches = list(loader().shuffled(0, 1))
    assert [len(y) for _, y in batches] == [10] * 9
    normalise = data.normalisation.on(torch.device("cpu"))
    known = {
        row.numpy().tobytes(): int(y) for row, y in zip(normalise(data.train.images), data.train.labels, strict=True)
    }
    seen = [
        (row.contiguous().numpy().tobytes(), int(y))
        for images, ys in batches
        for row, y in zip(images, ys, strict=True)
    ]
    assert len({row for row, _ in seen}) == 90
    assert all(known[row] == label for row, label in seen)


def test_crops_are_those_of_the_padded_images_by_seed_epoch_and_sample():
    data = make_data(train=20)
    augmentation = Augmentation(AugmentConfig(crop_padding=1), side=8, num_classes=3)
    crops = Loader(data.train, data.normalisation, 10, augmentation=augmentation)
    plain = Loader(data.train, data.normalisation, 10)
    normalise = data.normalisation.on(torch.device("cpu"))
    offsets = draw_offsets(20, 1, seed=3, epoch=2)
    assert set(offsets.flatten().tolist()) == {0, 1, 2}
    order = torch.cat([y for _, y in plain.shuffled(3, 2)])
    assert torch.equal(torch.cat([y for _, y in crops.shuffled(3, 2)]), order)
    by_hand = set()
    for sample, (row, column) in zip(data.train.images, offsets.tolist(), strict=True):
        padded = torch.zeros(1, 10, 10, dtype=torch.uint8)
        padded[:, 1:9, 1:9] = sample
        by_hand.add(normalise(padded[None, :, row : row + 8, column : column + 8]).numpy().tobytes())
    found = [image[None].contiguous().numpy().tobytes() for images, _ in crops.shuffled(3, 2) for image in images]
    assert set(found) == by_hand
    assert torch.equal(next(crops.in_order())[0], next(plain.in_order())[0])


def test_evaluation_pass_gives_every_sample_once_in_order():
    data = make_data()
    assert torch.equal(torch.cat([y for _, y in loader().in_order()]), data.train.labels)


def test_a_set_smaller_than_a_batch_is_one_batch():
    small = loader(batch_size=500, n=12)
    assert small.steps == 1
    assert [len(y) for _, y in small.shuffled(0, 1)] == [12]


def test_channels_last_batches_hold_the_same_values():
    data = make_data()
    plain = next(Loader(data.train, data.normalisation, 8).in_order())[0]
    last = next(Loader(data.train, data.normalisation, 8, memory_format=torch.channels_last).in_order())[0]
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain, last)


@pytest.mark.shared_data
@pytest.mark.skipif(
    "RESNETLAB_DATA" not in os.environ, reason="RESNETLAB_DATA names no folder with fashion-mnist/ in it"
)
def test_fashion_mnist_is_read_whole():
    data = load_data(f"idx:{Path(os.environ['RESNETLAB_DATA']) / 'fashion-mnist'}")
    assert data.fingerprint["train"] == 60_000
    assert data.fingerprint["test"] == 10_000
    assert torch.bincount(data.train.labels).tolist() == [6000] * 10
    assert data.normalisation.mean[0] / 255 == pytest.approx(0.2860, abs=1e-4)
    assert data.normalisation.std[0] / 255 == pytest.approx(0.3530, abs=1e-4)

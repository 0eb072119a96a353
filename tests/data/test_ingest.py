"""Tables of images that do not fit, or are not of one size: decoded when asked for."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

import resnetlab.data.held as held_rule
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Split
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.image import decode
from resnetlab.data.inspect import inspect_data, pick_samples
from tests.data.test_hub import LABELS, _apart, encoded, good, images, read, table, write  # noqa: F401, a fixture

WIDE = [np.vstack([image, image[:2]]) for image in images(12, 20)]


def all_of(split):
    return next(iter(split.batches([torch.arange(len(split))])))


def mixed(folder):
    """Training images of 22×20, test images of 8×8."""
    tables = good()
    tables["train"] = table([encoded(image) for image in WIDE], LABELS)
    return write(folder, tables)


def test_set_beyond_the_limit_is_decoded_when_asked_to_the_same_images(tmp_path, monkeypatch):
    write(tmp_path, good())
    held = read(tmp_path)
    monkeypatch.setattr(held_rule, "MOST_ARRAY_BYTES", 18 * 3 * 8 * 8 - 1)
    for workers in (0, 2):
        asked = read(tmp_path, DecodeConfig(workers=workers))
        assert isinstance(held.train, Split)
        assert isinstance(asked.train, EncodedSplit)
        assert torch.equal(all_of(asked.train), held.train.images)
        assert torch.equal(asked.test.labels, held.test.labels)
        assert torch.equal(asked.train.histogram(), held.train.histogram())
        assert (asked.normalisation, asked.train.encoding) == (held.normalisation, "lossless")
        assert asked.image_size == 8
    order = torch.tensor([7, 0, 7])
    assert torch.equal(next(iter(asked.train.batches([order]))), held.train.images[order])


def test_limit_itself_still_fits(tmp_path, monkeypatch):
    monkeypatch.setattr(held_rule, "MOST_ARRAY_BYTES", 18 * 3 * 8 * 8)
    assert isinstance(read(write(tmp_path, good())).train, Split)


@pytest.mark.parametrize("first", ["train", "test"])
def test_images_of_several_sizes_become_squares_of_224(tmp_path, first):
    """Whichever size comes first: square images are found to be not all there is."""
    tables = {"train": good()["train"], "test": table([encoded(image) for image in WIDE], LABELS)}
    if first == "test":
        tables = {"train": tables["test"], "test": tables["train"]}
    data = read(write(tmp_path, tables))
    assert data.train.shape == data.test.shape == (3, 224, 224)
    wide = data.train if first == "test" else data.test
    assert np.array_equal(all_of(wide)[3].permute(1, 2, 0).numpy(), decode(encoded(WIDE[3]), 224))
    counts = np.bincount(all_of(data.train)[:, 1].flatten().numpy(), minlength=256)
    assert np.array_equal(data.train.histogram()[1].numpy(), counts)


@pytest.mark.parametrize(("side", "kind"), [(8, Split), (16, Split), (64, Split), (65, EncodedSplit)])
def test_image_size_is_the_side_and_small_ones_are_held(tmp_path, side, kind):
    data = read(mixed(tmp_path), DecodeConfig(image_size=side))
    assert type(data.train) is type(data.test) is kind
    assert data.image_size == side
    assert np.array_equal(all_of(data.train)[0].permute(1, 2, 0).numpy(), decode(encoded(WIDE[0]), side))


def test_unreadable_images_are_left_out_of_what_is_decoded_later(tmp_path):
    tables = good()
    cells = [encoded(image) for image in WIDE]
    cells[0] = cells[4] = b"no image"
    tables["train"] = table(cells, LABELS)
    data = read(write(tmp_path, tables), DecodeConfig(on_bad="skip", image_size=70))
    assert len(data.train) == 10
    assert data.train.labels.tolist() == [label for number, label in enumerate(LABELS) if number not in (0, 4)]
    assert np.array_equal(all_of(data.train)[0].permute(1, 2, 0).numpy(), decode(encoded(WIDE[1]), 70))
    assert data.train.names[0] == "row 1 of train"


def test_fingerprint_of_encoded_images_sees_one_changed_image(tmp_path):
    sums = set()
    for name, changed in (("a", WIDE[3]), ("b", WIDE[3] ^ 1), ("c", WIDE[3])):
        tables = good()
        tables["train"] = table([encoded(p) for p in [*WIDE[:3], changed, *WIDE[4:]]], LABELS)
        data = read(write(tmp_path / name, tables))
        sums.add(data.fingerprint["sha256"])
    assert len(sums) == 2


def test_copies_among_encoded_images_are_found(tmp_path):
    tables = good()
    twice = BytesIO()
    Image.fromarray(WIDE[2]).save(twice, "BMP")  # other bytes, equal pixels
    tables["train"] = table([*(encoded(p) for p in WIDE[:11]), twice.getvalue()], LABELS)
    data = read(write(tmp_path, tables))
    assert inspect_data(data).duplicates["train"].examples == ((2, 11),)
    assert [len(images) for images in pick_samples(data, 9, 3).values()] == [3, 3, 3]

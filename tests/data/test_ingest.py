"""The engine that opens encoded images: once each, by any number of threads, into memory or not."""

from collections import Counter
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.data import ingest, opening
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Split
from resnetlab.data.decode import decode
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.inspect import inspect_data, pick_samples
from tests.data.test_folder import add, classes_of
from tests.data.test_folder import read as read_folder
from tests.data.test_hub import LABELS, _apart, encoded, good, images, read, table, write  # noqa: F401, a fixture

WIDE = [np.vstack([image, image[:2]]) for image in images(12, 20)]


def all_of(split):
    return next(iter(split.batches([torch.arange(len(split))])))


def mixed(folder):
    """Training images of 22×20, test images of 8×8."""
    tables = good()
    tables["train"] = table([encoded(image) for image in WIDE], LABELS)
    return write(folder, tables)


def test_unreadable_images_are_left_out_of_what_is_decoded_later(tmp_path):
    tables = good()
    cells = [encoded(image) for image in WIDE]
    cells[0] = cells[4] = b"no image"
    tables["train"] = table(cells, LABELS)
    data = read(write(tmp_path, tables), DecodeConfig(on_bad="skip", image_size=70))
    assert len(data.train) == 10
    assert data.train.labels.tolist() == [label for number, label in enumerate(LABELS) if number not in (0, 4)]
    assert np.array_equal(all_of(data.train)[0].permute(1, 2, 0).numpy(), decode(encoded(WIDE[1]), 70))
    assert data.train.names[0] == "a.png (row 1 of train)"


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
    assert [len(samples.images) for samples in pick_samples(data, 9, 3).values()] == [3, 3, 3]


@pytest.fixture
def opened(monkeypatch):
    """How often each file was opened."""
    counts, read_file = Counter(), opening.read_file

    def count(path):
        counts[path] += 1
        return read_file(path)

    monkeypatch.setattr(opening, "read_file", count)
    return counts


def odd_folder(folder, last=(9, 8)):
    """Two classes of twelve squares of one size, two broken files, and at the very end an image of another size."""
    classes_of(folder, "a", "b", count=12)
    for name in ("a/00.png", "b/5x.png"):
        (folder / name).write_bytes((folder / "a" / "1.png").read_bytes()[:-30])
    add(folder, "b/zz.png", size=last)
    return folder


@pytest.mark.parametrize("workers", [0, 3])
@pytest.mark.parametrize("last", [(8, 8), (9, 8), (9, 9)])
@pytest.mark.parametrize("image_size", [None, 8, 70])
def test_every_file_is_opened_once(tmp_path, opened, workers, last, image_size):
    """Also where the side turns out to be another, and where the bad files change the split."""
    data = read_folder(odd_folder(tmp_path, last), on_bad="skip", workers=workers, image_size=image_size)
    assert len(data.train) + len(data.test) == 25
    assert len(opened) == 27
    assert set(opened.values()) == {1}


@pytest.mark.parametrize("room", [0, 500, 1 << 20])
def test_files_that_cannot_be_retained_are_opened_again_to_the_same_set(tmp_path, monkeypatch, room):
    """As it would be without the broken files; the levels of both splits are those of their images."""
    odd_folder(tmp_path)
    found = []
    for retained, workers in ((room, 3), (room, 0)):
        monkeypatch.setattr(ingest, "RETAINED_BYTES", retained)
        found.append(read_folder(tmp_path, on_bad="skip", workers=workers))
    for name in ("a/00.png", "b/5x.png"):
        (tmp_path / name).unlink()
    expected = read_folder(tmp_path).fingerprint
    for data in found:
        assert data.fingerprint == expected
        for split in data.splits.values():
            assert isinstance(split, EncodedSplit)
            held = Split(images=all_of(split), labels=split.labels)
            assert split.statistics().std == pytest.approx(held.statistics().std, rel=1e-14)


@pytest.mark.parametrize(("image_size", "kind"), [(None, EncodedSplit), (16, Split), (64, Split), (65, EncodedSplit)])
@pytest.mark.parametrize("workers", [0, 3])
def test_tables_are_read_by_any_number_of_threads(tmp_path, workers, image_size, kind):
    data = read(mixed(tmp_path), DecodeConfig(image_size=image_size, workers=workers))
    expected = [decode(encoded(image), image_size or 224).transpose(2, 0, 1) for image in WIDE]
    assert type(data.train) is type(data.test) is kind
    assert np.array_equal(all_of(data.train).numpy(), np.stack(expected))

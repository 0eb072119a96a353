"""Arrays in .npz files: every layout, and files that lie."""

import contextlib
import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from resnetlab.core.errors import DataError
from resnetlab.data.npz import _as_images, _read_array, _require_bytes, read_npz

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.integers(0, 256, (12, 6, 6), dtype=np.uint8), RNG.integers(0, 256, (8, 6, 6), dtype=np.uint8)
COLOURS = RNG.integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
LABELS, FEWER = np.arange(12) % 4, np.arange(8) % 4


def keras(**changes):
    return {"x_train": TRAIN, "y_train": LABELS, "x_test": TEST, "y_test": FEWER, **changes}


def write(path, arrays, save=np.savez):
    save(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_names_of_keras_give_images_and_labels(tmp_path, save):
    data = read_npz(write(tmp_path / "set.npz", keras(), save), 0)
    assert np.array_equal(data.train.images.numpy()[:, 0], TRAIN)
    assert np.array_equal(data.test.images.numpy()[:, 0], TEST)
    assert np.array_equal(data.test.labels.numpy(), FEWER)
    assert (data.in_chans, data.image_size, data.classes, data.notes) == (1, 6, ("0", "1", "2", "3"), ())


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train", "val")])
def test_names_of_medmnist_give_all_their_splits(tmp_path, parts):
    arrays = {}
    for part, images, labels in zip(
        parts, (COLOURS, COLOURS[::-1], COLOURS[:8]), (LABELS, LABELS, FEWER), strict=False
    ):
        arrays |= {f"{part}_images": images, f"{part}_labels": labels[:, None].astype(np.uint8)}
    data = read_npz(write(tmp_path / "set.npz", arrays), 0)
    assert [len(split) for split in data.splits.values()] == [12, 12, 8][: len(parts)]
    assert np.array_equal(data.validation.images.numpy(), COLOURS[::-1].transpose(0, 3, 1, 2))
    assert (data.in_chans, data.train.labels.tolist(), data.notes) == (3, LABELS.tolist(), ())
    assert data.reported_split == ("test" if "test" in parts else "validation")


@pytest.mark.parametrize(
    "images",
    [COLOURS, np.asfortranarray(COLOURS), COLOURS.transpose(0, 3, 1, 2), COLOURS.transpose(0, 3, 1, 2).copy()],
)
def test_channels_are_found_first_or_last(tmp_path, images):
    data = read_npz(write(tmp_path / "set.npz", keras(x_train=images, x_test=COLOURS[:8])), 0)
    assert np.array_equal(data.train.images.numpy(), COLOURS.transpose(0, 3, 1, 2))
    assert data.train.images.is_contiguous()


def test_one_set_of_images_is_split_by_class_and_seed(tmp_path):
    path = write(tmp_path / "set.npz", {"images": np.tile(TRAIN, (5, 1, 1)), "labels": np.tile(LABELS, 5)})
    data = read_npz(path, 0)
    assert np.bincount(data.train.labels).tolist() == [12] * 4
    assert np.bincount(data.test.labels).tolist() == [3] * 4
    assert "split_seed=0" in data.notes[0]
    assert (
        read_npz(path, 0).fingerprint["sha256"] == data.fingerprint["sha256"] != read_npz(path, 1).fingerprint["sha256"]
    )


FAULTS = {
    "floats": (keras(x_train=TRAIN / 255), "x_train is float64; images are uint8.*np.round"),
    "wide integers": (keras(x_test=TEST.astype(np.int64)), "x_test is int64; images are uint8"),
    "float labels": (keras(y_train=LABELS.astype(float)), "y_train is float64; labels are integers"),
    "text labels": (keras(y_train=LABELS.astype(str)), "labels are integers"),
    "truth labels": (keras(y_train=LABELS > 1), "labels are integers"),
    "one-hot labels": (keras(y_train=np.eye(4, dtype=int)[LABELS]), "labels are integers, one an image"),
    "negative labels": (keras(y_train=LABELS - 1), "goes from -1 to 2"),
    "enormous labels": (keras(y_test=FEWER + 2**40), "labels are 0 up to"),
    "a label less": (keras(y_train=LABELS[1:]), "12 images in x_train but 11 labels"),
    "nothing": (keras(x_train=TRAIN[:0], y_train=LABELS[:0]), "x_train has the shape"),
    "not square": (keras(x_train=TRAIN[:, 1:]), "must be square"),
    "not square in colour": (keras(x_train=COLOURS.transpose(0, 3, 1, 2)[:, :, 1:]), "must be square"),
    "five channels": (keras(x_train=np.zeros((12, 6, 6, 5), np.uint8)), "it must be"),
    "flat": (keras(x_train=TRAIN.reshape(12, 36)), "it must be"),
    "one number": (keras(x_train=np.uint8(1)), "it must be"),
    "two sizes": (keras(x_test=np.zeros((8, 5, 5), np.uint8)), "train images are .*, test images are"),
    "other names": ({"a": TRAIN, "b": LABELS}, "holds a, b; it must hold x_train"),
    "one a class": ({"images": TRAIN[:4], "labels": LABELS[:4]}, "every class has one image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_arrays_that_are_no_images_and_labels_are_refused(tmp_path, fault):
    arrays, message = FAULTS[fault]
    with pytest.raises(DataError, match=message):
        read_npz(write(tmp_path / "set.npz", arrays), 0)


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def with_entry(path, name, content, compression=zipfile.ZIP_STORED):
    """The set of ``keras()`` with the bytes of one entry replaced."""
    write(path, keras())
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for entry, value in (entries | {name: content}).items():
            archive.writestr(entry, value)
    return path


def header(text, version=(1, 0)):
    length = struct.pack("<H", len(text)) if version == (1, 0) else struct.pack("<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text


def test_pickled_objects_are_refused_and_not_run(tmp_path):
    marker = tmp_path / "marker"
    trap = np.array([Trap(marker)] * 12, dtype=object)
    for changes in ({"x_train": trap}, {"y_train": trap}):
        path = tmp_path / "set.npz"
        np.savez(path, **keras(**changes))
        with pytest.raises(DataError, match="object"):
            read_npz(path, 0)
        assert not marker.exists()
    with np.load(path, allow_pickle=True) as control, contextlib.suppress(Exception):  # the second of them fails
        control["y_train"]
    assert marker.exists()


def descr(kind="'|u1'", shape="(2, 6, 6)"):
    return header(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n".encode())


LIES = {
    "values cut": descr() + b"x" * 71,
    "values added": descr() + b"x" * 73,
    "terabytes": descr(shape="(1000000, 1000, 1000)"),
    "an overflow": descr(shape=f"({2**40}, {2**40}, {2**40})"),
    "a negative length": descr(shape="(-2, -6, 6)") + b"x" * 72,
    "no shape": descr(shape="'a'"),
    "no header": b"",
    "another file": b"\xff\xd8\xff\xe0" * 9,
    "a header of code": header(b"__import__('os').mkdir('marker')\n"),
    "a long header": header(b"(" * 60_000),
    "a longer header": header(b" " * 1_000_000, (2, 0)),
    "another version": header(b"{}", (9, 0)),
    "a structure": descr(kind="[('a', '|u1')]") + b"x" * 72,
}


@pytest.mark.parametrize("lie", LIES)
def test_entry_that_lies_is_refused_by_its_file(tmp_path, lie, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = with_entry(tmp_path / "set.npz", "x_train.npy", LIES[lie])
    with pytest.raises(DataError, match=r"set\.npz"):
        read_npz(path, 0)
    assert not (tmp_path / "marker").exists()


def test_entry_that_unpacks_without_end_is_read_no_further_than_its_header(tmp_path):
    bomb = descr() + b"\0" * 100_000_000
    path = with_entry(tmp_path / "set.npz", "x_train.npy", bomb, zipfile.ZIP_DEFLATED)
    del bomb
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match="is not the 2×6×6 values"):
        read_npz(path, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_what_is_no_zip_is_refused(tmp_path):
    whole = write(tmp_path / "set.npz", keras()).read_bytes()
    for content in (b"", b"x" * 100, whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_npz(tmp_path / "set.npz", 0)
    stream = io.BytesIO()
    np.save(stream, TRAIN)
    (tmp_path / "set.npz").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(tmp_path / "set.npz", 0)
    with pytest.raises(DataError, match="is not a file"):
        read_npz(tmp_path, 0)


def test_changed_values_are_noticed_by_the_sum_of_the_zip(tmp_path):
    path = write(tmp_path / "set.npz", keras())
    content = bytearray(path.read_bytes())
    content[content.index(TRAIN.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_npz(path, 0)


def test_zeros_that_unpack_to_a_thousand_times_their_size_are_refused_unread(tmp_path):
    zeros = np.zeros((70_000_000 // 36, 6, 6), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", **keras() | {"x_train": zeros})
    del zeros
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x_train announces 69,999,\d+ bytes from .*at most 32 times.*np\.savez "):
        read_npz(tmp_path / "set.npz", 0)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_grey_images_are_in_memory_once(tmp_path):
    count = 200_000
    images = {"images": np.zeros((count, 8, 8), np.uint8), "labels": np.arange(count) % 2}
    np.savez(tmp_path / "set.npz", **images)
    stored = zipfile.ZipFile(tmp_path / "set.npz")
    tracemalloc.start()
    found = _as_images(_read_array(stored, tmp_path / "set.npz", "images", _require_bytes), "images")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stored.close()
    assert found.shape == (count, 1, 8, 8)
    assert peak < 1.5 * found.numel()


def test_entries_that_lie_over_each_other_are_refused(tmp_path):
    """One stream that the directory names twice would count as two files."""
    path = write(tmp_path / "set.npz", keras())
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        sizes = [entry.compress_size for entry in archive.infolist()]
    where = data.index(b"PK\x01\x02") + 20
    assert struct.unpack_from("<I", data, where)[0] == sizes[0]
    struct.pack_into("<I", data, where, len(data))
    path.write_bytes(data)
    with pytest.raises(DataError, match="lie over each other"):
        read_npz(path, 0)

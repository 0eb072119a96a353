"""Arrays in .npz files: every layout, and files that lie."""

import contextlib
import io
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.npz import _read_array, _require_numbers, read_npz
from resnetlab.data.sources import load_data

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
    data = read_npz(str(write(tmp_path / "set.npz", keras(), save)), 0)
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
    data = read_npz(str(write(tmp_path / "set.npz", arrays)), 0)
    assert [len(split) for split in data.splits.values()] == [12, 12, 8][: len(parts)]
    assert np.array_equal(data.validation.images.numpy(), COLOURS[::-1].transpose(0, 3, 1, 2))
    assert (data.in_chans, data.train.labels.tolist(), data.notes) == (3, LABELS.tolist(), ())
    assert data.reported_split == ("test" if "test" in parts else "validation")


@pytest.mark.parametrize(
    "images",
    [COLOURS, np.asfortranarray(COLOURS), COLOURS.transpose(0, 3, 1, 2), COLOURS.transpose(0, 3, 1, 2).copy()],
)
def test_channels_are_found_first_or_last(tmp_path, images):
    data = read_npz(str(write(tmp_path / "set.npz", keras(x_train=images, x_test=COLOURS[:8]))), 0)
    assert np.array_equal(data.train.images.numpy(), COLOURS.transpose(0, 3, 1, 2))
    assert data.train.images.is_contiguous()


def test_one_set_of_images_is_split_by_class_and_seed(tmp_path):
    path = write(tmp_path / "set.npz", {"images": np.tile(TRAIN, (5, 1, 1)), "labels": np.tile(LABELS, 5)})
    data = read_npz(str(path), 0)
    assert np.bincount(data.train.labels).tolist() == [12] * 4
    assert np.bincount(data.test.labels).tolist() == [3] * 4
    assert "split_seed=0" in data.notes[0]
    assert (
        read_npz(str(path), 0).fingerprint["sha256"]
        == data.fingerprint["sha256"]
        != read_npz(str(path), 1).fingerprint["sha256"]
    )


CASES = {
    (
        30,
        8,
        12,
        3,
    ): "8×12 pixels, 3 channels last; images must be square: pad them to 12×12 or cut them to 8×8",
    (30, 3, 8, 12): "images of 8×12 pixels, 3 channels first",
    (30, 3, 8, 3): "neither 3×8 nor 8×3 pixels are square",
    (30, 8, 12): "images of 8×12 pixels; images must be square",
    (30, 3072): r"\(N, 3, 32, 32\) where it holds a plane for each colour, to \(N, 32, 32, 3\) where",
    (30, 784): r"reshape it to \(N, 28, 28\)",
    (30, 77): r"reshape it to \(N, H, W\)",
    (32, 32, 3, 30): r"np\.moveaxis\(images, -1, 0\)",
    (30, 8, 8, 2): "2 channels; 1, 3 or 4 are read",
    (30, 2, 8, 8): "2 channels; 1, 3 or 4 are read",
    (30, 5, 6, 7): "with 1, 3 or 4 channels",
    (30, 3, 8, 8, 1): "it must be",
    (30,): "it must be",
}


@pytest.mark.parametrize("shape", CASES)
def test_each_shape_that_is_none_gets_the_advice_for_its_case(tmp_path, shape):
    arrays = {"images": np.zeros(shape, np.uint8), "labels": np.arange(30) % 3}
    with pytest.raises(DataError, match=CASES[shape]):
        read_npz(str(write(tmp_path / "set.npz", arrays)), 0)


KINDS = {
    "integers": (
        lambda x: x.astype(np.int64),
        "images are int64, whole numbers from 0 to 255: 0 is black and 255 white",
    ),
    "whole floats": (lambda x: x.astype(np.float32), "images are float32, whole numbers from 0 to 255"),
    "half of 16": (lambda x: (x / 255).astype(np.float16), "images are float16 from 0 to 1: 0 is black and 1 white"),
    "floats": (lambda x: (x / 255).astype(np.float32), "images are float32 from 0 to 1"),
    "other bytes": (lambda x: x.astype(">u2"), "images are >u2, whole numbers"),
}
LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(12, 8, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_say_what_white_is_give_the_very_pixels(tmp_path, kind):
    change, note = KINDS[kind]
    data = read_npz(str(write(tmp_path / "a.npz", keras(x_train=change(LEVELS), x_test=change(LEVELS[:8])))), 0)
    assert np.array_equal(data.train.images.numpy()[:, 0], LEVELS)
    assert data.notes[0].startswith(note)


def test_range_is_that_of_all_splits(tmp_path):
    """A test split that is dark by itself is not brightened."""
    dark = np.minimum(LEVELS[:8], 100)
    data = read_npz(str(write(tmp_path / "a.npz", keras(x_train=LEVELS / 255, x_test=dark / 255))), 0)
    assert np.array_equal(data.test.images.numpy()[:, 0], dark)
    truth = read_npz(str(write(tmp_path / "b.npz", keras(x_train=LEVELS > 99, x_test=LEVELS[:8] > 99))), 0)
    assert np.array_equal(truth.train.images.numpy()[:, 0], 255 * (LEVELS > 99))


SCALES = {
    "0..65535": lambda x: x.astype(np.uint16) * 257,
    "65535": lambda x: x.astype(np.uint16) * 257,
    "-1..1": lambda x: x / 127.5 - 1,
    "1..0": lambda x: 1 - x / 255,
    "-0.5..0.5": lambda x: x / 255 - 0.5,
    "0..255": lambda x: x,
}


@pytest.mark.parametrize("scale", SCALES)
def test_scale_of_the_user_gives_the_very_pixels(tmp_path, scale):
    change = SCALES[scale]
    path = write(tmp_path / "a.npz", keras(x_train=change(LEVELS), x_test=change(LEVELS[:8])))
    data = load_data(f"npz:{path}#scale={scale}")
    assert np.array_equal(data.train.images.numpy()[:, 0], LEVELS)
    assert data.source == f"npz:{path}#scale={scale}"
    assert "as given" in data.notes[0]


def test_scale_that_is_none_or_too_narrow_is_refused(tmp_path):
    path = write(tmp_path / "a.npz", keras())
    for text in ("x", "1..1", "0..inf", ""):
        with pytest.raises(ConfigError, match=r"write #scale=BLACK\.\.WHITE"):
            read_npz(f"{path}#scale={text}", 0)
    with pytest.raises(DataError, match=r"images go from 0 to 255, beyond #scale=0\.\.1"):
        read_npz(f"{path}#scale=0..1", 0)


def test_a_test_without_labels_is_left_out(tmp_path):
    secret = write(
        tmp_path / "a.npz", keras(x_train=np.tile(TRAIN, (5, 1, 1)), y_train=np.tile(LABELS, 5), y_test=FEWER * 0 - 1)
    )
    data = load_data(f"npz:{secret}")
    assert (data.classes, len(data.train), len(data.test)) == (("0", "1", "2", "3"), 48, 12)
    assert data.notes[0] == "y_test has no labels and is left out"


FAULTS = {
    "floats beyond one": (
        keras(x_train=TRAIN * 0.7, x_test=TEST * 0.7),
        r"float64 from 0 to 17.*name both: npz:.*#scale=0\.\.255",
    ),
    "dim floats": (keras(x_train=TRAIN / 1e4, x_test=TEST / 1e4), "which does not say what is black"),
    "standardised": (keras(x_train=TRAIN / 99 - 1, x_test=TEST / 99 - 1), "Images that were standardised have lost"),
    "signed floats": (keras(x_train=TRAIN / 127.5 - 1, x_test=TEST / 127.5 - 1), r"#scale=-1\.\.1"),
    "16 bits": (keras(x_train=TRAIN.astype("u2") * 257, x_test=TEST.astype("u2") * 257), r"#scale=0\.\.65535"),
    "negative integers": (keras(x_train=TRAIN.astype("i8") - 9, x_test=TEST.astype("i8")), "from -9 to 2"),
    "floats beside bytes": (keras(x_train=TRAIN / 255), "float64 and uint8.* store those of all splits as one type"),
    "no number": (keras(x_test=np.where(TEST > 9, np.nan, TEST)), "no finite numbers"),
    "text": (keras(x_train=TRAIN.astype(str)), "images are numbers"),
    "float labels": (keras(y_train=LABELS.astype(float)), "y_train is float64; labels are integers"),
    "text labels": (keras(y_train=LABELS.astype(str)), "labels are integers"),
    "truth labels": (keras(y_train=LABELS > 1), "labels are integers"),
    "one-hot labels": (keras(y_train=np.eye(4, dtype=int)[LABELS]), "labels are integers, one an image; .*argmax"),
    "negative labels": (keras(y_train=LABELS - 1), "3 of the 12 images of y_train have no label"),
    "enormous labels": (keras(y_test=FEWER + 2**40), "labels are 0 up to"),
    "a label less": (keras(y_train=LABELS[1:]), "12 images in x_train but 11 labels"),
    "nothing": (keras(x_train=TRAIN[:0], y_train=LABELS[:0]), "x_train has the shape .* it holds no pixels"),
    "not square": (keras(x_train=TRAIN[:, 1:]), "5×6 pixels; images must be square: pad them to 6×6"),
    "not square in colour": (keras(x_train=COLOURS.transpose(0, 3, 1, 2)[:, :, 1:]), "5×6 pixels, 3 channels first"),
    "five channels": (keras(x_train=np.zeros((12, 6, 6, 5), np.uint8)), "5 channels; 1, 3 or 4 are read"),
    "flat": (keras(x_train=TRAIN.reshape(12, 36)), r"each image is a row; reshape it to \(N, 6, 6\)"),
    "one number": (keras(x_train=np.uint8(1)), "it must be"),
    "two sizes": (keras(x_test=np.zeros((8, 5, 5), np.uint8)), "x_train images are .*, x_test images are"),
    "other names": ({"a": TRAIN, "b": LABELS}, "holds a, b; it must hold x_train"),
    "one a class": ({"images": TRAIN[:4], "labels": LABELS[:4]}, "every class has one image"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_arrays_that_are_no_images_and_labels_are_refused(tmp_path, fault):
    arrays, message = FAULTS[fault]
    with pytest.raises(DataError, match=message):
        read_npz(str(write(tmp_path / "set.npz", arrays)), 0)


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
            read_npz(str(path), 0)
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
        read_npz(str(path), 0)
    assert not (tmp_path / "marker").exists()


def test_entry_that_unpacks_without_end_is_read_no_further_than_its_header(tmp_path):
    bomb = descr() + b"\0" * 100_000_000
    path = with_entry(tmp_path / "set.npz", "x_train.npy", bomb, zipfile.ZIP_DEFLATED)
    del bomb
    assert path.stat().st_size < 1_000_000
    tracemalloc.start()
    with pytest.raises(DataError, match="is not the 2×6×6 values"):
        read_npz(str(path), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_what_is_no_zip_is_refused(tmp_path):
    whole = write(tmp_path / "set.npz", keras()).read_bytes()
    for content in (b"", b"x" * 100, whole[: len(whole) // 2], whole[:-30]):
        (tmp_path / "set.npz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_npz(str(tmp_path / "set.npz"), 0)
    stream = io.BytesIO()
    np.save(stream, TRAIN)
    (tmp_path / "set.npz").write_bytes(stream.getvalue())
    with pytest.raises(DataError, match="cannot be read"):
        read_npz(str(tmp_path / "set.npz"), 0)
    with pytest.raises(DataError, match="is not a file"):
        read_npz(str(tmp_path), 0)


def test_changed_values_are_noticed_by_the_sum_of_the_zip(tmp_path):
    path = write(tmp_path / "set.npz", keras())
    content = bytearray(path.read_bytes())
    content[content.index(TRAIN.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_npz(str(path), 0)


def test_zeros_that_unpack_to_a_thousand_times_their_size_are_refused_unread(tmp_path):
    zeros = np.zeros((70_000_000 // 36, 6, 6), np.uint8)
    np.savez_compressed(tmp_path / "set.npz", **keras() | {"x_train": zeros})
    del zeros
    tracemalloc.start()
    with pytest.raises(DataError, match=r"x_train announces 69,999,\d+ bytes from .*at most 32 times.*np\.savez "):
        read_npz(str(tmp_path / "set.npz"), 0)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_grey_images_are_in_memory_once(tmp_path):
    count = 200_000
    images = {"images": np.zeros((count, 8, 8), np.uint8), "labels": np.arange(count) % 2}
    np.savez(tmp_path / "set.npz", **images)
    with zipfile.ZipFile(tmp_path / "set.npz") as stored:
        tracemalloc.start()
        found = _read_array(stored, tmp_path / "set.npz", "images", _require_numbers)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert found.shape == (count, 8, 8)
    assert peak < 1.5 * found.size


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
        read_npz(str(path), 0)

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetlab.core.errors import DataError
from resnetlab.data.idx import read_idx, read_idx_folder

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def make_folder(folder, *, compress=True):
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (12, 6, 6), dtype=np.uint8),
        (np.arange(12) % 4).astype(np.uint8),
        rng.integers(0, 256, (8, 6, 6), dtype=np.uint8),
        (np.arange(8) % 4).astype(np.uint8),
    ]
    for name, array in zip(NAMES, arrays, strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return arrays


@pytest.mark.parametrize("compress", [True, False])
def test_folder_gives_images_and_labels(tmp_path, compress):
    train_images, train_labels, test_images, _ = make_folder(tmp_path, compress=compress)
    data = read_idx_folder(tmp_path)
    assert np.array_equal(data.train.images.numpy()[:, 0], train_images)
    assert np.array_equal(data.test.images.numpy()[:, 0], test_images)
    assert np.array_equal(data.train.labels.numpy(), train_labels)
    assert (data.in_chans, data.image_size, data.classes) == (1, 6, ("0", "1", "2", "3"))


@pytest.mark.parametrize("form", ["{0}.idx{1}", "{0}.idx{1}.gz", "{0}-idx{1}/{0}-idx{1}", "{0}.idx{1}/{0}.idx{1}"])
def test_names_as_unzipped_and_as_on_kaggle_are_read(tmp_path, form):
    make_folder(tmp_path, compress=form.endswith(".gz"))
    expected = read_idx_folder(tmp_path).fingerprint
    (tmp_path / "named").mkdir()
    for name in NAMES:
        path = tmp_path / "named" / form.format(*name.split("-idx"))
        path.parent.mkdir(exist_ok=True)
        (tmp_path / (f"{name}.gz" if form.endswith(".gz") else name)).rename(path)
    assert read_idx_folder(tmp_path / "named").fingerprint["sha256"] == expected["sha256"]


def test_gzipped_and_plain_folders_have_one_fingerprint(tmp_path):
    folders = []
    for compress in (True, False):
        folder = tmp_path / str(compress)
        folder.mkdir()
        make_folder(folder, compress=compress)
        folders.append(read_idx_folder(folder).fingerprint["sha256"])
    assert folders[0] == folders[1]


def test_missing_folder_and_missing_file_say_what_is_looked_for(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        read_idx_folder(tmp_path / "none")
    make_folder(tmp_path)
    (tmp_path / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(DataError, match=NAMES[3]):
        read_idx_folder(tmp_path)


def damage(data: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "magic": b"\x00\x01" + data[2:],
        "type": data[:2] + b"\x0d" + data[3:],
        "dimensions": data[:3] + b"\x02" + data[4:],
        "header cut": data[:7],
        "values cut": data[:-1],
        "values added": data + b"x",
        "header lies": data[:4] + struct.pack(">I", 2**31) + data[8:],
    }


@pytest.mark.parametrize("fault", damage(idx(np.zeros((2, 2, 2), np.uint8))))
@pytest.mark.parametrize("compress", [True, False])
def test_damaged_file_is_refused_by_its_name(tmp_path, fault, compress):
    data = damage(idx(np.zeros((2, 2, 2), np.uint8)))[fault]
    path = tmp_path / ("images.gz" if compress else "images")
    path.write_bytes(gzip.compress(data) if compress else data)
    with pytest.raises(DataError, match="images"):
        read_idx(path, dimensions=3)


def test_damaged_compression_is_refused(tmp_path):
    path = tmp_path / "images.gz"
    whole = gzip.compress(idx(np.zeros((9, 9, 9), np.uint8)))
    for data in (b"not gzip", whole[:-6], whole[:20] + b"\xff\xff\xff" + whole[23:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(path, dimensions=3)


@given(st.binary(max_size=64))
@settings(max_examples=300)
def test_random_bytes_are_read_or_refused_and_never_crash(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(data)
    try:
        values = read_idx(path, dimensions=1)
    except DataError:
        return
    assert len(values) == struct.unpack(">I", data[4:8])[0]


@pytest.mark.parametrize(
    ("replaced", "array", "message"),
    [
        (1, np.zeros(11, np.uint8), "12×6×6 train images but 11 labels"),
        (2, np.zeros((8, 5, 5), np.uint8), "differ in size"),
        (0, np.zeros((12, 6, 5), np.uint8), "not square"),
        (0, np.zeros((0, 6, 6), np.uint8), "0×6×6 train images"),
        (0, np.zeros((12, 0, 0), np.uint8), "12×0×0 train images"),
    ],
)
def test_files_that_contradict_each_other_are_refused(tmp_path, replaced, array, message):
    make_folder(tmp_path, compress=False)
    (tmp_path / NAMES[replaced]).write_bytes(idx(array))
    with pytest.raises(DataError, match=message):
        read_idx_folder(tmp_path)


def zeros_folder(folder, count: int, side: int = 28):
    folder.mkdir()
    for prefix, n in (("train", count), ("t10k", 10)):
        arrays = {"images-idx3": np.zeros((n, side, side), np.uint8), "labels-idx1": np.zeros(n, np.uint8)}
        for name, array in arrays.items():
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(idx(array), 1))
    return folder


def test_zeros_that_unpack_to_a_thousand_times_their_size_are_refused_unread(tmp_path):
    folder = zeros_folder(tmp_path / "bomb", 100_000)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"78,400,000 bytes from .*at most 32 times.*gunzip"):
        read_idx_folder(folder)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("compress", [True, False])
def test_images_are_in_memory_once(tmp_path, compress):
    folder = zeros_folder(tmp_path / "set", 20_000)
    path = folder / "train-images-idx3-ubyte.gz"
    if not compress:
        (folder / "train-images-idx3-ubyte").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    tracemalloc.start()
    images = read_idx_folder(folder).train.images
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert images.numel() == 15_680_000
    assert peak < 1.5 * images.numel()

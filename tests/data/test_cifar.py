"""CIFAR in both versions, from fixtures of a few rows."""

import pickle

import numpy as np
import pytest
import torch

from resnetlab.core.errors import DataError
from resnetlab.data.cifar import read_cifar
from tests.data.test_unpickle import python2

TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUNDRED = [f"thing {number}" for number in range(100)]


def rows(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3072), dtype=np.uint8), rng.integers(0, classes, n)


def files(classes: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Test images are of classes that are trained on."""
    train = {f"data_batch_{i}": rows(4, 10, i) for i in range(1, 6)} if classes == 10 else {"train": rows(20, 100, 1)}
    labels = np.concatenate([labels for _, labels in train.values()])
    return train | {"test_batch" if classes == 10 else "test": (rows(6, classes, 9)[0], labels[3:9])}


def write_binary(folder, classes):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, labels) in files(classes).items():
        columns = [labels[:, None]] if classes == 10 else [labels[:, None] // 5, labels[:, None]]
        (folder / f"{name}.bin").write_bytes(np.hstack([*columns, pixels]).astype(np.uint8).tobytes())
    name, names = ("batches.meta.txt", TEN) if classes == 10 else ("fine_label_names.txt", HUNDRED)
    (folder / name).write_text("\n".join(names) + "\n\n")


def write_pickled(folder, classes, dump=python2):
    folder.mkdir(parents=True, exist_ok=True)
    key = "labels" if classes == 10 else "fine_labels"
    for name, (pixels, labels) in files(classes).items():
        coarse = {} if classes == 10 else {"coarse_labels": (labels // 5).tolist()}
        (folder / name).write_bytes(dump({"batch_label": b"x", "data": pixels, key: labels.tolist(), **coarse}))
    meta = ("batches.meta", {"label_names": TEN}) if classes == 10 else ("meta", {"fine_label_names": HUNDRED})
    (folder / meta[0]).write_bytes(dump(meta[1]))


def python3(values):
    return pickle.dumps({name.encode(): value for name, value in values.items()}, protocol=2)


WRITERS = {
    "binary": write_binary,
    "python 2": write_pickled,
    "python 3": lambda folder, classes: write_pickled(folder, classes, python3),
}
USUAL = {
    ("binary", 10): "cifar-10-batches-bin",
    ("binary", 100): "cifar-100-binary",
    ("python 2", 10): "cifar-10-batches-py",
    ("python 2", 100): "cifar-100-python",
    ("python 3", 10): "cifar-10-batches-py",
    ("python 3", 100): "cifar-100-python",
}


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize(("version", "classes"), USUAL)
def test_every_version_gives_the_rows_that_were_written(tmp_path, version, classes, within):
    WRITERS[version](tmp_path / USUAL[version, classes] if within else tmp_path, classes)
    data = read_cifar(tmp_path, classes)
    parts = list(files(classes).values())
    for split, expected in ((data.train, parts[:-1]), (data.test, parts[-1:])):
        pixels = np.concatenate([pixels for pixels, _ in expected])
        # A row is all of red, then green, then blue, each row by row.
        assert torch.equal(split.images[:, 1, 2, 3], torch.from_numpy(pixels[:, 1024 + 2 * 32 + 3]))
        assert np.array_equal(split.images.numpy().reshape(len(pixels), -1), pixels)
        assert np.array_equal(split.labels.numpy(), np.concatenate([labels for _, labels in expected]))
    assert data.classes == tuple(TEN if classes == 10 else HUNDRED)
    assert data.notes == (
        f"20 train images, where CIFAR-{classes} has 50,000",
        f"6 test images, where CIFAR-{classes} has 10,000",
    )
    assert data.source == f"cifar{classes}:{tmp_path}"


def test_both_versions_have_one_fingerprint(tmp_path):
    write_binary(tmp_path / "a", 10)
    write_pickled(tmp_path / "b", 10)
    sums = {read_cifar(tmp_path / name, 10).fingerprint["sha256"] for name in "ab"}
    assert len(sums) == 1


def label_of(folder, label):
    path = folder / "data_batch_2.bin"
    content = bytearray(path.read_bytes())
    content[0] = label
    path.write_bytes(content)


BINARY_FAULTS = {
    "cut": (lambda folder: (folder / "test_batch.bin").write_bytes(b"x" * 3000), "test_batch.bin has 3000 bytes"),
    "empty": (lambda folder: (folder / "test_batch.bin").write_bytes(b""), "test_batch.bin has 0 bytes"),
    "label": (lambda folder: label_of(folder, 10), "a label is 10"),
    "batch missing": (lambda folder: (folder / "data_batch_4.bin").unlink(), "no file data_batch_4.bin"),
    "names missing": (lambda folder: (folder / "batches.meta.txt").unlink(), "no file batches.meta.txt"),
    "names empty": (lambda folder: (folder / "batches.meta.txt").write_text("\n"), "names 0 classes"),
    "first missing": (lambda folder: (folder / "data_batch_1.bin").unlink(), "holds no CIFAR-10: give the folder of"),
}


@pytest.mark.parametrize("fault", BINARY_FAULTS)
def test_damaged_binary_version_is_refused_by_its_file(tmp_path, fault):
    write_binary(tmp_path, 10)
    read_cifar(tmp_path, 10)  # the control: whole, it is read
    damage, message = BINARY_FAULTS[fault]
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        read_cifar(tmp_path, 10)


PIXELS, LABELS = files(10)["data_batch_2"]
PICKLE_FAULTS = {
    "no pixels": {"labels": LABELS.tolist()},
    "no labels": {"data": PIXELS},
    "a label less": {"data": PIXELS, "labels": LABELS.tolist()[1:]},
    "other size": {"data": PIXELS[:, 1:], "labels": LABELS.tolist()},
    "labels of text": {"data": PIXELS, "labels": ["a"] * 4},
    "labels of lists": {"data": PIXELS, "labels": [[1]] * 4},
    "a great label": {"data": PIXELS, "labels": [65000] * 4},
    "labels as array": {"data": PIXELS, "labels": LABELS.astype(np.uint8)},
    "pixels as list": {"data": [1, 2], "labels": [1, 2]},
    "nothing": {"data": PIXELS[:0], "labels": []},
}


@pytest.mark.parametrize("fault", PICKLE_FAULTS)
def test_pickle_that_is_not_cifar_is_refused_by_its_file(tmp_path, fault):
    write_pickled(tmp_path, 10)
    (tmp_path / "data_batch_2").write_bytes(python3(PICKLE_FAULTS[fault]))
    with pytest.raises(DataError, match=r"data_batch_2 (is not CIFAR|was refused)"):
        read_cifar(tmp_path, 10)


def test_names_that_are_lists_are_left_out(tmp_path):
    write_pickled(tmp_path, 10)
    (tmp_path / "batches.meta").write_bytes(python3({"label_names": [[b"a"], b"b", "c"]}))
    with pytest.raises(DataError, match=r"a label is 9, but .* names 2 classes"):
        read_cifar(tmp_path, 10)


def test_file_beyond_the_limit_is_not_read(tmp_path):
    write_binary(tmp_path, 10)
    with open(tmp_path / "data_batch_1.bin", "r+b") as stream:
        stream.truncate((1 << 30) + 1)  # sparse: it takes no disk
    with pytest.raises(DataError, match="at most"):
        read_cifar(tmp_path, 10)

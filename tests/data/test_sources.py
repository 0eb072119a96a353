"""What a user writes after --data."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.config import DecodeConfig
from resnetlab.data.sources import SOURCES, load_data
from tests.data.test_cifar import write_binary
from tests.data.test_idx import NAMES, idx, make_folder
from tests.data.test_npz import keras


def test_each_array_source_is_read_by_its_reader(tmp_path):
    (tmp_path / "idx").mkdir()
    make_folder(tmp_path / "idx")
    write_binary(tmp_path / "ten", 10)
    write_binary(tmp_path / "hundred", 100)
    np.savez(tmp_path / "set.npz", **keras())
    found = {
        source: load_data(source)
        for source in (
            f"idx:{tmp_path}/idx",
            f"cifar10:{tmp_path}/ten",
            f"cifar100:{tmp_path}/hundred",
            f"npz:{tmp_path}/set.npz",
            "digits",
        )
    }
    assert [len(data.classes) for data in found.values()] == [4, 10, 100, 4, 10]
    assert all(data.source == source == data.fingerprint["source"] for source, data in found.items())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digit", "did you mean 'digits'"),
        ("cifra10:x", "cifar10:FOLDER"),
        ("parket:x", "parquet:DIR"),
        ("idx:", "names no folder; write idx:FOLDER"),
        ("npz:", "write npz:FILE"),
        ("hub:", "write hub:OWNER/NAME"),
        ("nonsense", "known: .*cifar10:FOLDER.*folder:DIR"),
        ("", "known:"),
    ],
)
def test_unknown_source_names_what_is_near(source, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=message):
        load_data(source)


@pytest.mark.parametrize("source", ["./images", "/nowhere/at/all", "data/images"])
def test_path_that_does_not_exist_is_called_so(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=f"{source} does not exist"):
        load_data(source)


def test_file_without_a_scheme_says_how_to_write_it(tmp_path):
    path = tmp_path / "set.npz"
    path.touch()
    with pytest.raises(ConfigError, match="write npz:FILE"):
        load_data(str(path))


@pytest.mark.parametrize("source", ["digits", "idx:x", "cifar10:x", "cifar100:x", "npz:x"])
def test_size_of_arrays_is_theirs(source):
    with pytest.raises(ConfigError, match="image_size=64 is not possible for"):
        load_data(source, decode=DecodeConfig(image_size=64))


def test_every_row_of_the_table_has_a_reader(tmp_path):
    """A scheme without one would end in another error than that of its missing files."""
    for name in SOURCES:
        scheme, colon, _ = name.partition(":")
        if colon and scheme not in ("hub", "folder"):
            with pytest.raises(DataError, match="none"):
                load_data(f"{scheme}:{tmp_path}/none")


def test_names_beside_idx_files_are_those_of_the_classes(tmp_path):
    make_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("shirt\n\n$ trousers\nпальто\n 4 \n", encoding="utf-8")
    assert load_data(f"idx:{tmp_path}").classes == ("shirt", "$ trousers", "пальто", "4")
    (tmp_path / "classes.txt").write_text("shirt\n")
    with pytest.raises(DataError, match="names 1 classes, but the labels go up to 3"):
        load_data(f"idx:{tmp_path}")
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot be read as text"):
        load_data(f"idx:{tmp_path}")


def test_path_of_a_folder_is_that_of_images(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(5):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    found = [load_data(source) for source in ("set", "./set", f"{tmp_path}/set", "folder:set")]
    assert {data.fingerprint["sha256"] for data in found} == {found[0].fingerprint["sha256"]}
    assert (found[0].classes, found[0].image_size) == (("cat", "dog"), 8)
    assert load_data("set", decode=DecodeConfig(image_size=16)).image_size == 16


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


def test_a_set_that_no_classifier_can_learn_is_refused(tmp_path):
    for images, labels in ((1, [0]), (4, [0, 0, 0, 0])):
        for name in NAMES:
            array = np.zeros((images, 4, 4), np.uint8) if "images" in name else np.array(labels, np.uint8)
            (tmp_path / name).write_bytes(idx(array))
        with pytest.raises(DataError, match="at least two of each"):
            load_data(f"idx:{tmp_path}")


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

"""How many training images a set of arrays has is known before it is read."""

import gzip
import struct

import numpy as np
import pytest

from resnetlab.data.counts import count_images
from resnetlab.data.sources import load_data


def write_idx(folder, train, test, end=""):
    folder.mkdir()
    for prefix, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 2
        images = np.zeros((count, 4, 4))
        for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
            content = head + values.astype(np.uint8).tobytes()
            (folder / f"{name}{end}").write_bytes(gzip.compress(content) if end else content)
    return f"idx:{folder}"


@pytest.mark.parametrize("end", ["", ".gz"])
def test_the_header_of_an_idx_file_says_it(tmp_path, end):
    source = write_idx(tmp_path / "set", 30, 8, end)
    assert count_images(source) == len(load_data(source).train) == 30


def test_the_header_of_an_npz_file_says_it_and_of_a_whole_set_four_fifths_train(tmp_path):
    images, labels = np.zeros((40, 4, 4), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "parts.npz", x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
    np.savez_compressed(tmp_path / "whole.npz", images=images, labels=labels)
    for source, count in ((f"npz:{tmp_path}/parts.npz#scale=0..255", 40), (f"npz:{tmp_path}/whole.npz", 32)):
        assert count_images(source) == len(load_data(source).train) == count


def test_cifar_has_its_number_and_what_cannot_be_read_none(tmp_path):
    assert count_images("cifar10:anywhere") == count_images("cifar100:anywhere") == 50_000
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    for source in ("digits", "idx:nowhere", "npz:nowhere.npz", f"npz:{tmp_path}/bad.npz", "photos", "hub:a/b"):
        assert count_images(source) == 0

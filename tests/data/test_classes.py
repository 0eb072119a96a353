"""One rule for labels and classes, whatever the images come from."""

import numpy as np
import pytest
import torch

from resnetlab.core.errors import DataError
from resnetlab.data.config import DecodeConfig
from resnetlab.data.sources import load_data
from tests.data.test_folder import add
from tests.data.test_hub import _apart, datasets, encoded, images, pa, pq  # noqa: F401, a fixture
from tests.data.test_idx import NAMES, idx

COMPACT = DecodeConfig(compact_labels=True)
EVERY = list(range(10)) * 3


def write_npz(place, train, test):
    pixels = np.random.default_rng(0).integers(0, 256, (len(train), 8, 8), dtype=np.uint8)
    np.savez(place / "set.npz", x_train=pixels, y_train=train, x_test=pixels[: len(test)], y_test=test)
    return f"npz:{place}/set.npz"


def write_idx(place, train, test):
    pixels = np.random.default_rng(0).integers(0, 256, (len(train), 8, 8), dtype=np.uint8)
    arrays = (pixels, np.array(train, np.uint8), pixels[: len(test)], np.array(test, np.uint8))
    for name, array in zip(NAMES, arrays, strict=True):
        (place / name).write_bytes(idx(array))
    return f"idx:{place}"


def write_parquet(place, train, test, kind=None):
    for split, labels in (("train", train), ("test", test)):
        cells = [{"bytes": encoded(image), "path": None} for image in images(len(labels))]
        table = pa.table({"image": cells, "label": pa.array(labels, kind)})
        if kind is None and all(label is None or label >= 0 for label in (*train, *test)):
            names = [str(number) for number in range(1 + max(label or 0 for label in (*train, *test)))]
            types = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
            table = pa.table({"image": cells, "label": labels}, schema=types.arrow_schema)
        pq.write_table(table, place / f"{split}.parquet")
    return f"parquet:{place}"


def write_folder(place, train, test):
    for split, labels in (("train", train), ("test", test)):
        for label in range(1 + max((*train, *test))):
            (place / split / str(label)).mkdir(parents=True)
        add(place / split, *(f"{label}/{number}.png" for number, label in enumerate(labels)))
    return f"folder:{place}"


WRITERS = {"npz": write_npz, "idx": write_idx, "parquet": write_parquet, "folder": write_folder}


@pytest.mark.parametrize("scheme", WRITERS)
def test_a_class_that_only_the_test_has_is_refused_by_the_same_words(tmp_path, scheme):
    source = WRITERS[scheme](tmp_path, [0, 1, 2] * 4, [0, 1, 2, 3])
    for decode in (DecodeConfig(), COMPACT):
        with pytest.raises(
            DataError, match="has classes without images to train on: 3; they have test images"
        ) as caught:
            load_data(source, decode=decode)
        assert str(caught.value).startswith(source)


@pytest.mark.parametrize("scheme", WRITERS)
def test_a_class_that_no_image_has_is_told_by_the_same_words_and_left_out_by_a_flag(tmp_path, scheme):
    source = WRITERS[scheme](tmp_path, [1, 2, 4] * 4, [1, 2, 4])
    words = r"classes without images to train on: 0, 3 (labels start at 1 and have gaps)"
    if scheme == "folder":  # whose empty folders should have had images
        with pytest.raises(DataError, match=r"classes without images to train on: 0, 3.*--compact-labels"):
            load_data(source)
    else:
        data = load_data(source)
        assert data.notes[-1] == f"{words}; --compact-labels leaves them out"
        assert (data.classes, data.train.labels.tolist()) == (tuple("01234"), [1, 2, 4] * 4)
    data = load_data(source, decode=COMPACT)
    assert data.classes == ("1", "2", "4")
    assert sorted(data.train.labels.tolist()) == sorted([0, 1, 2] * 4)
    assert data.test.labels.tolist() == [0, 1, 2]
    assert data.notes[-1] == "classes without images are left out: 0, 3"
    assert data.fingerprint["train_counts"] == [4, 4, 4]


@pytest.mark.parametrize("scheme", ["npz", "idx", "parquet"])
@pytest.mark.parametrize(("labels", "told"), [([1, 2], "labels start at 1"), ([0, 50], "labels have gaps")])
def test_a_base_of_one_and_gaps_are_told(tmp_path, scheme, labels, told):
    (note,) = [n for n in load_data(WRITERS[scheme](tmp_path, labels * 3, labels)).notes if "train on" in n]
    assert f"({told})" in note


@pytest.mark.parametrize("scheme", WRITERS)
def test_a_set_whose_classes_all_have_images_is_left_alone(tmp_path, scheme):
    source = WRITERS[scheme](tmp_path, [0, 1, 2] * 4, [0, 1])
    data, compact = load_data(source), load_data(source, decode=COMPACT)
    assert data.notes[-1:] == compact.notes[-1:] == ("no test images of: 2",)
    assert data.fingerprint == compact.fingerprint


def test_names_beside_numbers_say_nothing_of_their_base(tmp_path):
    source = write_idx(tmp_path, [1, 2] * 3, [1, 2])
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert load_data(source).notes == ("classes without images to train on: a; --compact-labels leaves them out",)


NONE = {"minus one": (-1, None), "null": (None, None), "minus one of int8": (-1, "int8"), "no text": ("", "string")}
NONE |= {"NaN, as pandas stores a gap": (float("nan"), "float64"), "null of floats": (None, "float32")}


@pytest.mark.parametrize("kind", NONE)
def test_labels_that_mean_none_are_never_a_class(tmp_path, kind):
    none, column = NONE[kind]
    labels = ["a", "b", "c"] * 4 if column == "string" else [0, 1, 2] * 4
    column = column or "int64"
    (tmp_path / "a").mkdir()
    data = load_data(write_parquet(tmp_path / "a", labels, [none] * 6, column))
    assert (data.classes, len(data.train), len(data.test)) == (tuple(map(str, labels[:3])), 9, 3)
    assert "test has no labels and is left out" in data.notes
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"1 of the 4 images of test have no label.* mean none"):
        load_data(write_parquet(tmp_path / "b", labels, [*labels[:3], none], column))
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="1 of the 13 images of train have no label"):
        load_data(write_parquet(tmp_path / "c", [*labels, none], labels[:3], column))


def test_whole_numbers_are_the_same_classes_however_a_split_stores_them(tmp_path):
    source = write_parquet(tmp_path, [0, 1, 2] * 4, [0, 1, 2], "int64")
    table = pq.read_table(tmp_path / "test.parquet")
    pq.write_table(table.set_column(1, "label", pa.array([2.0, 1.0, 0.0])), tmp_path / "test.parquet")
    data = load_data(source)
    assert (data.classes, data.test.labels.tolist()) == (("0", "1", "2"), [2, 1, 0])


def test_fractions_are_no_labels(tmp_path):
    with pytest.raises(DataError, match=r"0\.5 is no label: labels are whole numbers or texts"):
        load_data(write_parquet(tmp_path, [0, 0.5, 1] * 4, [0, 1], "float64"))


@pytest.mark.parametrize("lack", ["no column", "a column of nulls"])
def test_a_test_without_the_column_of_labels_is_left_out(tmp_path, lack):
    source = write_parquet(tmp_path, [0, 1, 2] * 4, [0, 1, 2], "int64")
    table = pq.read_table(tmp_path / "test.parquet").drop_columns("label")
    if lack != "no column":
        table = table.append_column("label", pa.nulls(3))
    pq.write_table(table, tmp_path / "test.parquet")
    data = load_data(source)
    assert (len(data.train), len(data.test)) == (9, 3)
    assert "test has no labels and is left out" in data.notes


def test_images_that_stay_encoded_are_numbered_anew_too(tmp_path, monkeypatch):
    monkeypatch.setattr("resnetlab.data.ingest.MOST_ARRAY_BYTES", 0)
    data = load_data(write_parquet(tmp_path, [1, 3] * 4, [1, 3], None), decode=COMPACT)
    assert type(data.train).__name__ == "EncodedSplit"
    assert torch.equal(data.train.labels, torch.tensor([0, 1] * 4))

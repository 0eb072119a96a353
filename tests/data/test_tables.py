"""Tables of images: columns, classes, splits and names."""

import json
import pickle

import numpy as np
import pytest

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.dataset import Chosen
from resnetlab.data.sources import load_data
from resnetlab.data.tables import Cells
from tests.data.test_hub import (  # noqa: F401, a fixture
    FEWER,
    LABELS,
    NAMES,
    TEST,
    TRAIN,
    _apart,
    datasets,
    encoded,
    good,
    images,
    pa,
    pq,
    read,
    table,
    write,
)

CELL = {"bytes": encoded(images(1)[0]), "path": None}


ODD = {
    "a number as bytes": ([{"bytes": 0}] * 4, "4 of 4 images cannot be read"),
    "a text as bytes": ([{"bytes": "/etc/hostname", "path": None}] * 4, "4 of 4 images cannot be read"),
    "a number as path": ([{"bytes": None, "path": 5}] * 4, "4 of 4 images cannot be read"),
    "a path with a zero": ([{"bytes": None, "path": "a\0b"}] * 4, "4 of 4 images cannot be read"),
    "paths alone": ([{"path": "a.png"}] * 4, "no column of images"),
    "no rows": ([], "train.parquet"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_cells_are_refused(tmp_path, odd):
    """A number must never reach open(): it would read one of this process's own files."""
    cells, message = ODD[odd]
    pq.write_table(pa.table({"img": cells, "label": [0, 1, 0, 1][: len(cells)]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def meta(**features):
    return {"info": {"features": features}}


METADATA = {
    "no JSON": "{{{",
    "a number": {"info": {"features": 7}},
    "unknown type": meta(img={"_type": "Evil"}, label={"_type": "ClassLabel", "names": ["a", "b"]}),
    "two equal names": meta(img={"_type": "Image"}, label={"_type": "ClassLabel", "names": ["a", "a"]}),
    "too few names": meta(img={"_type": "Image"}, label={"_type": "ClassLabel", "names": ["a"]}),
    "no names": meta(img={"_type": "Image"}, label={"_type": "ClassLabel", "num_classes": 2}),
}


@pytest.mark.parametrize("lie", METADATA)
def test_metadata_that_lies_is_refused(tmp_path, lie):
    rows = pa.table({"img": [CELL] * 4, "label": [0, 1, 0, 1]})
    for value, fails in ((METADATA[lie], True), (meta(label={"_type": "ClassLabel", "names": [1, 2]}), False)):
        text = value if isinstance(value, str) else json.dumps(value)
        pq.write_table(rows.replace_schema_metadata({"huggingface": text}), tmp_path / "train.parquet")
        if fails:
            with pytest.raises(DataError, match=str(tmp_path)):
                read(tmp_path)
        else:  # the control; names that are numbers become texts
            assert all(isinstance(name, str) for name in read(tmp_path).classes)


def test_labels_of_texts_and_numbers_make_classes_in_order(tmp_path):
    cells = [{"bytes": encoded(p), "path": None} for p in TRAIN]
    for values, classes in ((["b", "a", "c"], ("a", "b", "c")), ([7, -3, 20], ("-3", "7", "20"))):
        for split in ("train", "test"):
            # Plain Parquet, as pandas writes it: nothing of the library datasets in it.
            pq.write_table(
                pa.table({"image": cells, "target": values * 4, "id": list(range(12))}), tmp_path / f"{split}.parquet"
            )
        data = read(tmp_path)
        assert data.classes == classes
        assert data.train.labels.tolist() == [1, 0, 2] * 4
        assert data.notes[0] == "images from column image, labels from column target"


def two_labels():
    return {name: rows.add_column("coarse", rows["label"]) for name, rows in good().items()}


def test_several_columns_of_labels_are_named_and_chosen_behind_a_mark(tmp_path):
    kind = datasets.ClassLabel(names=["a", "b", "c"])
    write(tmp_path, {name: rows.cast_column("coarse", kind) for name, rows in two_labels().items()})
    with pytest.raises(DataError, match=r"several columns of labels: label, coarse; .*#label"):
        read(tmp_path)
    assert read(f"{tmp_path}#coarse").classes == ("a", "b", "c")
    assert read(f"{tmp_path}#img,label").classes == tuple(NAMES)
    with pytest.raises(ConfigError, match="has no column 'fine'"):
        read(f"{tmp_path}#fine")


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_bytes_without_a_struct_are_images_where_no_column_is_typed(tmp_path, kind):
    write(tmp_path / "typed", good())
    expected = read(tmp_path / "typed").fingerprint["sha256"]
    bare = {}
    for name, rows in good().items():
        cells = [cell["bytes"] for cell in rows.cast_column("img", datasets.Image(decode=False))["img"]]
        bare[name] = rows.remove_columns("img").add_column("img", cells, feature=datasets.Value(kind))
    write(tmp_path / "bare", bare)
    assert read(tmp_path / "bare").fingerprint["sha256"] == expected
    both = {name: rows.add_column("mask", [b"0"] * len(rows)) for name, rows in good().items()}
    write(tmp_path / "both", both)
    assert read(tmp_path / "both").fingerprint["sha256"] == expected


def test_column_of_another_name_is_a_label_where_the_user_says_so(tmp_path):
    write(tmp_path, two_labels())
    assert read(tmp_path).classes == tuple(NAMES)  # a ClassLabel goes before numbers
    assert read(f"{tmp_path}#coarse").classes == ("0", "1", "2")


def test_table_without_images_or_labels_names_its_columns(tmp_path):
    rows = good()["train"]
    write(tmp_path / "a", {"train": rows.remove_columns("img")})
    with pytest.raises(DataError, match=r"no column of images; its columns: label \(ClassLabel\)"):
        read(tmp_path / "a")
    write(tmp_path / "b", {"train": rows.remove_columns("label")})
    with pytest.raises(DataError, match="no column of labels"):
        read(tmp_path / "b")
    write(tmp_path / "c", {"train": rows.add_column("other", [{"bytes": b"", "path": ""}] * 12)})
    with pytest.raises(DataError, match="several columns of images: img, other"):
        read(tmp_path / "c")


def test_splits_that_contradict_each_other_are_refused(tmp_path):
    tables = good()
    tables["test"] = tables["test"].cast_column("label", datasets.ClassLabel(names=["x", "y", "z"]))
    with pytest.raises(DataError, match="differ in the types"):
        read(write(tmp_path, tables))


def test_all_three_splits_are_read_and_a_test_without_labels_is_none(tmp_path):
    tables = good()
    secret = table([encoded(p) for p in TEST], [-1] * 6)
    three = {"train": tables["train"], "validation": tables["test"]}
    data = read(write(tmp_path / "three", three | {"test": tables["train"]}))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 12, "validation": 6, "test": 12}
    assert data.notes[1:] == ()
    data = read(write(tmp_path / "secret", {"train": tables["train"], "test": secret, "validation": tables["test"]}))
    assert (data.test, data.validation.labels.tolist()) == (None, FEWER)
    assert data.notes[1:] == ("test has no labels and is left out",)


def test_images_are_called_by_their_file_and_row(tmp_path):
    tables = good()
    tables["train"] = table(
        [{"bytes": encoded(p), "path": f"x/\x1b{i}.png" if i else None} for i, p in enumerate(TRAIN)], LABELS
    )
    data = read(write(tmp_path, tables))
    assert list(data.train.names)[:2] == ["row 0 of train", "x/\\x1b1.png (row 1 of train)"]
    assert len(data.test.names) == 6


def test_images_without_labels_are_left_out_where_the_set_is_only_looked_at(tmp_path):
    tables = good()
    tables["train"] = table([encoded(p) for p in TRAIN], [-1, *LABELS[1:-1], None])
    told = []
    data = load_data(f"parquet:{write(tmp_path, tables)}", refuse=told.append)
    assert "2 of the 12 images of train have no label" in told[0]
    assert data.train.labels.tolist() == LABELS[1:-1]
    assert np.array_equal(data.train.images.permute(0, 2, 3, 1).numpy(), np.stack(TRAIN[1:-1]))
    assert np.array_equal(data.test.images.permute(0, 2, 3, 1).numpy(), np.stack(TEST))
    assert data.train.names[0] == "a.png (row 1 of train)"


def test_single_missing_labels_are_refused(tmp_path):
    tables = good()
    tables["train"] = table([encoded(p) for p in TRAIN], [-1, *LABELS[1:-1], None])
    with pytest.raises(DataError, match="2 of the 12 images of train have no label"):
        read(write(tmp_path, tables))


def test_cells_can_be_pickled_for_other_processes(tmp_path):
    write(tmp_path, good())
    rows = datasets.Dataset.from_parquet(str(tmp_path / "train.parquet"), split="train")
    cells = Cells({"train": rows.cast_column("img", datasets.Image(decode=False))}, "img", None)
    sent = pickle.dumps(Chosen(cells, np.arange(12)[::-1]))
    assert len(sent) < 10_000
    assert list(pickle.loads(sent)) == [encoded(p) for p in TRAIN[::-1]]

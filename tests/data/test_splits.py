"""Which split a name stands for, in folders, Parquet files and on the Hub."""

import pytest

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.folder import list_folder
from resnetlab.data.sources import load_data
from resnetlab.data.splits import parse_choice, place_names, read_name
from tests.data.test_folder import add, classes_of, read
from tests.data.test_hub import _apart, datasets, good, write  # noqa: F401, a fixture
from tests.data.test_hub import read as read_parquet

EXACT = {
    "train": "train Train TRAIN training training_set trainset TrainSet train-images 01_train train_2 trainval",
    "validation": "val valid validation Validation val_set dev development ValidationData VAL1",
    "test": "test Test testing TESTING test_set test-images testset TestData test01 test-00000-of-00001",
}


@pytest.mark.parametrize(("split", "name"), [(split, name) for split, names in EXACT.items() for name in names.split()])
def test_names_of_splits_are_read_blind_to_case_and_fillers(split, name):
    assert (read_name(name).split, read_name(name).exact) == (split, True)


@pytest.mark.parametrize(
    ("name", "split", "rest"),
    [
        ("cifar10-train", "train", ("cifar10",)),
        ("my_test_0", "test", ("my",)),
        ("test_tube", "test", ("tube",)),
        ("TrainStation", "train", ("station",)),
        ("train2017", "train", ("2017",)),
        ("train-00000-of-00001-a09b74b3ef9c3b56", "train", ()),
        ("train/part-00000-0f8fad5b-d9cb-469f-a165-70867728950e-c000.snappy", "train", ()),
        ("trains", None, ("trains",)),
        ("contest", None, ("contest",)),
        ("latest", None, ("latest",)),
        ("values", None, ("values",)),
        ("device", None, ("device",)),
        ("train_test", None, ()),
    ],
)
def test_a_word_counts_as_a_whole_alone(name, split, rest):
    assert (read_name(name).split, read_name(name).rest) == (split, rest)


PLACED = [
    (["test", "train"], {"train": ["train"], "test": ["test"]}),
    (["Train", "Test"], {"train": ["Train"], "test": ["Test"]}),
    (["cifar10-train", "cifar10-test"], {"train": ["cifar10-train"], "test": ["cifar10-test"]}),
    (["my_test_0", "my_train_0", "my_train_1"], {"train": ["my_train_0", "my_train_1"], "test": ["my_test_0"]}),
    (["default/train/0000", "default/test/0000"], {"train": ["default/train/0000"], "test": ["default/test/0000"]}),
    (["train2017", "val2017"], {"train": ["train2017"], "validation": ["val2017"]}),
    (["anything"], {"train": ["anything"]}),
    (["part-0", "part-1"], {"train": ["part-0", "part-1"]}),
]


@pytest.mark.parametrize(("names", "placed"), PLACED)
def test_names_decide_whatever_their_order(names, placed):
    for order in (names, names[::-1]):
        found = place_names(order, "hub:a/b", "splits")
        assert {split: sorted(some) for split, some in found.items()} == placed
        assert next(iter(found)) == "train"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["full", "corrupted"], "which split is full, corrupted?"),
        (["full"], "which split is full?"),
        (["a", "b"], "which split is a, b?"),
        (["data", "0000"], "which split is data, 0000?"),
        (["train-0", "eval-0"], "which split is eval?"),
        (["train", "test", "extra"], r"hub:a/b\[train=train,test=test\]"),
        (["train", "valid", "validation"], "valid, validation are several names for validation"),
        (["train", "train_full", "test"], "train, train_full are several names for train"),
        (["train2014", "train2017", "test"], "several names for train"),
        (["trainA", "trainB", "testA", "testB"], "several names for train; .* several names for test"),
        (["cifar10-train", "mnist-test"], "differ in more than their split"),
        (["test"], "nothing to train on"),
        (["test", "validation"], "nothing to train on"),
        (["train", "train_test"], "which split is train_test?"),
        (["train", "holdout"], "which split is holdout?"),
    ],
)
def test_names_that_leave_anything_to_be_guessed_are_asked_for(names, message):
    with pytest.raises(DataError, match=message) as caught:
        place_names(names, "hub:a/b", "splits")
    assert "hub:a/b[train=" in str(caught.value)


def test_brackets_say_which_name_is_which_split():
    place, choice = parse_choice("owner/name[train=a+b*,val=c,test=d]#fine")
    assert place == "owner/name#fine"
    names = {name: [name] for name in ("d", "c", "b2", "b1", "a", "e")}
    assert choice.place(names, "x") == {"train": ["a", "b2", "b1"], "validation": ["c"], "test": ["d"]}
    assert parse_choice("a[1]#b") == ("a[1]#b", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a[test=b]", "names no training images"),
        ("a[train=]", r"write \[train=NAME"),
        ("a[trian=b]", r"write \[train=NAME"),
        ("a[train=b,train=c]", "each split once"),
    ],
)
def test_brackets_that_say_nothing_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_choice(text)


@pytest.mark.parametrize(("text", "message"), [("[train=z]", "train=z means nothing"), ("[train=a,test=a]", "both")])
def test_names_that_are_not_there_or_wanted_twice_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_choice(text)[1].place({"a": ["a"], "b": ["b"]}, "x")


FOLDERS = [
    ("train", "validation"), ("Train", "Test"), ("Training", "Testing"), ("training_set", "test_set"),
    ("TRAIN", "VAL"), ("seg_train", "seg_test"), ("trainset", "testset"), ("train", "dev"),
    ("cifar10-train", "cifar10-test"),
]  # fmt: skip


@pytest.mark.parametrize("names", FOLDERS)
def test_parts_of_a_folder_are_never_its_classes(tmp_path, names):
    add(tmp_path, *(f"{part}/{name}/{n}.png" for part in names for name in ("cat", "dog") for n in range(2)))
    data = read(tmp_path)
    assert (data.classes, len(data.train), len(data.reported)) == (("cat", "dog"), 4, 4)
    assert all(name.startswith(names[0]) for name in data.train.names)


def test_classes_whose_names_contain_such_a_word_are_classes(tmp_path):
    names = ("contest", "steam_train", "test_tube", "trains", "valet")
    assert list_folder(classes_of(tmp_path, *names)).classes == names


@pytest.mark.parametrize("names", [("full", "half"), ("eval", "cat"), ("clean", "corrupted")])
def test_words_that_are_no_split_by_themselves_may_be_classes(tmp_path, names):
    assert list_folder(classes_of(tmp_path, *names)).classes == tuple(sorted(names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("cat/", "dog/", "train/cat/", "train/dog/"), "train looks like a part of the set, cat, dog like a class"),
        (("cat/", "dog/", "test/"), "test looks like a part of the set, cat, dog like a class"),
        (("train/a/", "test/a/", "extra/a/"), "which split is extra, beside test, train\\?"),
        (("train/a/", "test/a/", "other/a/"), "test, train look like parts of the set, other like a class"),
        (("train/a/", "holdout/a/"), "which split is holdout, beside train"),
        (("train/a/", "val/a/", "valid/a/"), "val, valid are several folders for one split"),
        (("train/a/", "Train/b/"), "Train, train are several folders for one split"),
        (("test/a/", "val/a/"), "no folder to train on"),
        (("trainA/a/", "trainB/a/", "testA/a/", "testB/a/"), "several folders for one split"),
        (("full/a/", "full/b/", "corrupted/a/", "corrupted/b/"), "look like parts of the set"),
        (("cifar10_train/", "mnist_test/"), "differ in more than the split"),
        (("cifar10_train/a/", "mnist_test/a/"), "look like parts of the set"),
    ],
)
def test_what_may_be_a_part_or_a_class_is_asked_for(tmp_path, names, message):
    add(tmp_path, *(f"{name}{number}.png" for name in names for number in range(3)))
    with pytest.raises(DataError, match=message) as caught:
        list_folder(tmp_path)
    assert "with a folder for each class" in str(caught.value)
    assert f"folder:{tmp_path}[train=.]" in str(caught.value)


def test_brackets_answer_what_a_folder_leaves_open(tmp_path):
    add(tmp_path, *(f"{part}/{name}/{n}.png" for part in ("a", "b", "train") for name in "xy" for n in range(5)))
    whole = load_data(f"{tmp_path}[train=.]")
    assert (whole.classes, len(whole.train), len(whole.test)) == (("a", "b", "train"), 24, 6)
    two = load_data(f"folder:{tmp_path}[train=a+b,test=train]")
    assert (two.classes, len(two.train), len(two.test), two.notes) == (("x", "y"), 20, 10, ())
    one = load_data(f"{tmp_path}[train=a]")
    assert (len(one.train), len(one.test), one.notes) == (8, 2, ("the splits are a/; not read: b, train",))
    add(tmp_path / "more", *(f"{part}/{name}/1.png" for part in ("c/d", "c/e") for name in "xy"))
    deep = load_data(f"folder:{tmp_path}/more[train=c/d,test=c/e]")
    assert (deep.classes, len(deep.train), len(deep.test)) == (("x", "y"), 2, 2)
    for wrong in ("train=c", "train=.,test=a", "train=../x"):
        with pytest.raises(ConfigError):
            load_data(f"folder:{tmp_path}[{wrong}]")


def test_folders_that_all_hold_the_same_folders_are_told(tmp_path):
    add(tmp_path, *(f"{part}/{name}/{n}.png" for part in ("amazon", "webcam") for name in "xy" for n in range(2)))
    (note,) = read(tmp_path).notes[:1]
    assert "the classes are amazon, webcam; each holds the folders x, y" in note
    assert f"folder:{tmp_path}[train=…,test=…]" in note


def test_a_part_without_classes_can_be_left_out(tmp_path):
    add(tmp_path, *(f"train/{name}/{n}.png" for name in "ab" for n in range(5)), "test/1.png")
    with pytest.raises(DataError, match="holds no folder of a class") as caught:
        read(tmp_path)
    source = str(caught.value).rpartition(" ")[2]
    assert source == f"folder:{tmp_path}[train=train]"
    assert len(load_data(source).test) == 2


PARQUET = [
    {"cifar10-train": "train", "cifar10-test": "test"}, {"Train": "train", "Test": "test"},
    {"my_train_0": "train", "my_test_0": "test"}, {"sub/deep/train": "train", "sub/deep/test": "test"},
    {"data/TRAIN-00000-of-00001": "train", "data/TEST-00000-of-00001": "test"},
]  # fmt: skip


@pytest.mark.parametrize("names", PARQUET, ids=str)
def test_parquet_files_are_the_splits_that_their_names_say(tmp_path, names):
    data = read_parquet(write(tmp_path, {name: good()[split] for name, split in names.items()}))
    assert (len(data.train), len(data.test)) == (12, 6)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train-0", "eval-0"), "which split is eval?"),
        (("train", "other"), "which split is other?"),
        (("trained", "tests"), "which split is tests, trained?|which split is trained, tests?"),
        (("train", "val", "valid"), "several names for validation"),
    ],
)
def test_every_parquet_file_is_accounted_for(tmp_path, names, message):
    write(tmp_path, {name: good()["train"] for name in names})
    with pytest.raises(DataError, match=message):
        read_parquet(tmp_path)
    data = read_parquet(f"{tmp_path}[train={names[0]},test={names[1]}]")
    assert (len(data.train), len(data.test)) == (12, 12)
    assert any("not read: valid" in note for note in data.notes) == (len(names) == 3)


def test_files_beside_parquet_are_counted_and_a_split_among_them_is_refused(tmp_path):
    write(tmp_path, good())
    for name in ("README.md", "train.csv", "_SUCCESS", ".hidden"):
        (tmp_path / name).touch()
    assert "passed over 2 files that are not Parquet: 1 .csv, 1 .md" in read_parquet(tmp_path).notes
    (tmp_path / "validation.arrow").touch()
    with pytest.raises(DataError, match=r"validation\.arrow is no Parquet but has the name of a split"):
        read_parquet(tmp_path)
    assert len(read_parquet(f"{tmp_path}[train=train,test=test]").test) == 6


def test_shards_that_are_missing_are_told(tmp_path):
    write(tmp_path, {"train-00001-of-00003": good()["train"], "test-00000-of-00001": good()["test"]})
    assert "train: 1 of 3 files are there" in read_parquet(tmp_path).notes


def test_order_of_a_hub_repository_decides_nothing(monkeypatch):
    found = []
    for order in (("train", "test"), ("test", "train")):
        tables = datasets.DatasetDict({name: good()[name] for name in order})
        monkeypatch.setattr(datasets, "load_dataset", lambda _, tables=tables: tables)
        found.append(load_data("hub:owner/name").fingerprint)
    assert found[0] == found[1]
    assert (found[0]["train"], found[0]["test"]) == (12, 6)


@pytest.mark.parametrize("order", [("test", "full"), ("full", "test")])
def test_the_first_split_of_the_hub_is_never_taken_for_training(monkeypatch, order):
    """Where none is named so; it could be the test."""
    tables = datasets.DatasetDict({name: good()["test" if name == "test" else "train"] for name in order})
    monkeypatch.setattr(datasets, "load_dataset", lambda _: tables)
    with pytest.raises(DataError, match=r"which split is full\?.*hub:owner/name\[train=…,test=test\]"):
        load_data("hub:owner/name")


def test_splits_of_the_hub_of_unknown_names_are_asked_for(monkeypatch):
    tables = datasets.DatasetDict({"full": good()["train"], "corrupted": good()["test"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda _: tables)
    with pytest.raises(DataError, match=r"which split is full, corrupted\?.*hub:owner/name\[train=…,test=…\]"):
        load_data("hub:owner/name")
    data = load_data("hub:owner/name[train=full,test=corrupted]#label")
    assert (len(data.train), len(data.test)) == (12, 6)
    assert data.notes[1:] == ("train is full", "test is corrupted")
    assert len(load_data("hub:owner/name[train=full+corrupted]").train) == 18 - 3

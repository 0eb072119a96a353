"""``resnetlab data inspect``."""

import json

import numpy as np
import pytest
from PIL import Image

from resnetlab.cli import main
from tests.data.test_folder import add, classes_of
from tests.data.test_idx import NAMES, idx, make_folder
from tests.data.test_index import settle


def test_digits_are_shown_with_counts_and_a_sheet(run, tmp_path):
    code, out, errors = run("data", "inspect", "digits", "--out", tmp_path)
    assert (code, errors) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["source", "digits"] in lines
    assert ["3", "146", "37"] in lines
    assert "test images that are in train too: 0" in out
    with Image.open(tmp_path / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert json.loads((tmp_path / "inspect.json").read_text())["fingerprint"]["train"] == 1437


def test_json_is_one_object_and_the_same_as_the_file(run, tmp_path):
    code, out, errors = run("data", "inspect", "digits", "--json", "--out", tmp_path)
    assert (code, errors) == (0, "")
    found = json.loads(out)
    assert found == json.loads((tmp_path / "inspect.json").read_text())
    assert found["duplicates"]["test in train"] == found["near"]["test in train"] | {"count": 0, "examples": []}


def test_planted_faults_of_a_set_are_told(run, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    train, labels, test, other = make_folder(folder, compress=False)
    train[5] = train[2]
    test[0] = train[1]
    test[3] = 7
    (folder / NAMES[0]).write_bytes(idx(train))
    (folder / NAMES[1]).write_bytes(idx(np.where(labels == 3, 0, labels)))
    (folder / NAMES[2]).write_bytes(idx(test))
    (folder / NAMES[3]).write_bytes(idx(np.where(other == 3, 0, other)))
    (folder / "classes.txt").write_text("$a\n\x1b[31mred\nc\nd\n")
    code, out, errors = run("data", "inspect", f"idx:{folder}", "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    assert "equal images in train: 1, 1 under another label (such as 2 = 5)" in out
    assert "test images that are in train too: 1, 1 under another label (such as 1 = 0)" in out
    assert "images of one colour in test: 1 (such as 3)" in out
    assert "classes without training images: d" in out
    assert "\x1b" not in out


def test_all_splits_of_a_folder_are_shown_and_its_files_by_name(run, tmp_path):
    folder = tmp_path / "set"
    add(folder, *(f"{part}/{name}/{n}.png" for part in ("train", "val", "test") for name in "ab" for n in range(2)))
    (folder / "test/b/0.png").write_bytes((folder / "train/a/1.png").read_bytes())
    code, out, errors = run("data", "inspect", folder, "--out", tmp_path / "out")
    assert (code, errors) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert ["images", "4", "train,", "4", "validation,", "4", "test"] in lines
    assert ["class", "train", "validation", "test"] in lines
    assert ["b", "2", "2", "2"] in lines
    told = "test images that are in train too: 1, 1 under another label (such as train/a/1.png = test/b/0.png)"
    assert told in out
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert found["duplicates"]["test in train"]["names"] == [["train/a/1.png", "test/b/0.png"]]
    assert "  labels that differ: train/a/1.png (a) = test/b/0.png (b)" in out


def test_everything_that_is_wrong_is_told_in_one_call(run, tmp_path):
    """Unreadable files, an empty class, copies, near copies, other labels, imbalance; and then train would refuse."""
    folder = tmp_path / "set"
    add(folder, *(f"train/a/{n}.png" for n in range(9)), *(f"train/b/{n}.png" for n in range(3)), size=(32, 32))
    add(folder, *(f"test/{name}/{n}.png" for name in "ab" for n in range(4)), size=(32, 32))
    (folder / "train/c").mkdir()
    (folder / "test/b/equal.png").write_bytes((folder / "train/a/1.png").read_bytes())
    with Image.open(folder / "train/a/2.png") as image:
        image.save(folder / "test/a/near.jpg", quality=95, subsampling=0)
        image.point(lambda level: level * 0.8).save(folder / "test/b/darker.png")
    (folder / "train/a/broken.png").write_bytes(b"no image")
    (folder / "train/b/cut.png").write_bytes((folder / "train/b/0.png").read_bytes()[:-60])
    code, out, errors = run("data", "inspect", folder, "--out", tmp_path / "out")
    assert code == 3
    for line in (
        "test images that are in train too: 1, 1 under another label (such as train/a/1.png = test/b/equal.png)",
        "  labels that differ: train/a/1.png (a) = test/b/equal.png (b)",
        "test images nearly equal to one in train: 2, 1 under another label "
        "(such as train/a/2.png = test/a/near.jpg, train/a/2.png = test/b/darker.png)",
        "  labels that differ: train/a/2.png (a) = test/b/darker.png (b)",
        "unreadable: train/a/broken.png: it is no image",
        "unreadable: train/b/cut.png: ",
        "classes in train: from 3 (b) to 9 (a) images, 1 to 3.0; always saying a is right for 75.0%",
        "classes without training images: c",
    ):
        assert line in out, line
    assert "2 reasons not to train on this set" in errors
    assert "has classes without images to train on: c" in errors
    assert "2 of 25 images cannot be read" in errors
    found = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert [name for name, _ in found["unreadable"]] == ["train/a/broken.png", "train/b/cut.png"]
    assert len(found["refusals"]) == 2
    assert (tmp_path / "out" / "contact-sheet.png").exists()
    assert run("data", "inspect", folder, "--out", tmp_path / "out", "--on-bad", "skip", "--compact-labels")[0] == 0


def test_a_set_whose_splits_are_not_clear_is_shown_as_one(run, tmp_path):
    folder = tmp_path / "set"
    add(folder, *(f"{name}/{n}.png" for name in ("cat", "dog", "train/cat", "train/dog") for n in range(5)))
    code, out, errors = run("data", "inspect", folder, "--out", tmp_path / "out")
    assert code == 3
    assert "train looks like a part of the set" in errors
    assert f"note: read as one set, folder:{folder}[train=.], since its splits are not clear" in out
    assert ["train", "8", "2"] in [line.split() for line in out.splitlines()]


def test_a_label_that_is_missing_hides_nothing_else(run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    labels = np.array([0, 1, 2] * 4)
    source = tmp_path / "set.npz"
    np.savez(
        source, x_train=images, y_train=np.where(np.arange(12) == 5, -1, labels), x_test=images[:4], y_test=labels[:4]
    )
    code, out, errors = run("data", "inspect", f"npz:{source}", "--out", tmp_path / "out")
    assert code == 3
    assert "1 of the 12 images of y_train have no label" in errors
    assert "test images that are in train too: 4 (such as 0 = 0, 1 = 1, 2 = 2, 3 = 3)" in out
    assert ["2", "3", "1"] in [line.split() for line in out.splitlines()]


def unreadable_sets(place):
    """Sets of which nothing can be read, with everything that is to be told of each."""
    images, labels = np.zeros((12, 8, 8), np.uint8), np.arange(12) % 3
    np.savez(
        place / "a.npz", x_train=images.reshape(12, 64), y_train=labels / 2, x_test=images[:, :, :6], y_test=labels
    )
    (place / "damaged.npz").write_bytes(b"PK")
    for name in "ab":
        (place / "folder" / name).mkdir(parents=True)
        for number in range(2):
            (place / "folder" / name / f"{number}.png").write_bytes(b"no image")
    (place / "idx").mkdir()
    for name in NAMES:
        (place / "idx" / name).write_bytes(b"no idx")
    (place / "cifar").mkdir()
    files = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", "batches.meta.txt"]
    for name in files:
        (place / "cifar" / name).write_bytes(b"x")
    shapes = ("x_train has the shape (12, 64)", "x_test has the shape (12, 8, 6)", "y_train is float64")
    return {
        f"npz:{place}/a.npz": shapes,
        f"npz:{place}/damaged.npz": ("damaged.npz cannot be read as .npz",),
        f"{place}/folder": ("unreadable: a/0.png: ", "unreadable: b/1.png: ", "4 of 4 images cannot be read"),
        f"idx:{place}/idx": tuple(f"{name} is not an IDX file" for name in NAMES),
        f"cifar10:{place}/cifar": tuple(files),
    }


def unreadable_tables(place):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name in ("clear", "damaged"):
        (place / name).mkdir()
    images, labels = [{"bytes": b"", "path": None}] * 6, [0, 1, 2] * 2
    columns = {"image": images, "other": images, "label": labels, "target": labels}
    parquet.write_table(pa.table(columns), place / "clear" / "train.parquet")
    for name in ("train", "test"):
        (place / "damaged" / f"{name}.parquet").write_bytes(b"PAR1")
    return {
        f"parquet:{place}/clear": ("columns of images: image, other", "columns of labels: label, target"),
        f"parquet:{place}/damaged": ("train.parquet cannot be read", "test.parquet cannot be read"),
    }


@pytest.mark.parametrize("sets", [unreadable_sets, unreadable_tables])
def test_where_nothing_can_be_read_everything_is_told_in_the_same_form(run, tmp_path, sets):
    for source, told in sets(tmp_path).items():
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        (out / "contact-sheet.png").write_bytes(b"of another set")
        code, printed, errors = run("data", "inspect", source, "--out", out)
        assert (code, printed.splitlines()[:2]) == (3, [f"source  {source}", "images  none that can be read"])
        for line in told:
            assert line in printed + errors, (source, line, printed, errors)
        found = json.loads((out / "inspect.json").read_text())
        assert found["fingerprint"] == {"source": source}
        assert len(found["refusals"]) == max(1, sum("unreadable" not in line for line in told))
        assert not (out / "contact-sheet.png").exists()
        code, printed, _ = run("data", "inspect", source, "--json", "--out", out)
        assert (code, json.loads(printed)) == (3, found)


def test_what_cannot_be_inspected_is_one_message_and_writes_nothing(run, tmp_path):
    for words, code, message in (
        (("data", "inspect", "digit"), 2, "did you mean 'digits'"),
        (("data", "inspect", "digits", "--image-size", "16"), 2, "image_size=16 is not possible"),
        (("data", "inspect", f"idx:{tmp_path}/none"), 3, "is not a folder"),
        (("data", "inspect", f"{tmp_path}/none"), 3, "does not exist"),
        (("data", "inspect"), 2, "SOURCE"),
        (("data", "look", "digits"), 2, "inspect"),
    ):
        found, _, errors = run(*words, "--out", tmp_path / "out")
        assert (found, message in errors) == (code, True), (words, errors)
    assert not (tmp_path / "out").exists()


def test_help_of_the_verb_loads_nothing_heavy():
    from tests.contracts.test_house import HEAVY, loaded_by

    code = "from resnetlab.cli import main\ntry: main(['data', '--help'])\nexcept SystemExit: pass"
    assert not loaded_by(code)[0] & {*HEAVY, "PIL", "datasets"}


def test_pack_writes_what_train_reads_and_says_how(run, tmp_path):
    for label in ("a", "b"):
        add(tmp_path / "set" / label, *(f"{number}.png" for number in range(5)))
    words = ("data", "pack", tmp_path / "set", "--image-size", "8", "--out")
    code, out, errors = run(*words, tmp_path / "out", "--to", "shards")
    assert (code, errors) == (0, "")
    assert f"train on it: --data shards:{tmp_path}/out" in out
    assert run("data", "inspect", f"shards:{tmp_path}/out", "--out", tmp_path / "look")[0] == 0
    assert run(*words, tmp_path / "set.npz", "--to", "arrays")[0] == 0
    assert run("data", "inspect", f"npz:{tmp_path}/set.npz", "--out", tmp_path / "look")[0] == 0
    code, _, errors = run(*words, tmp_path / "other")
    assert (code, "--to shards|arrays" in errors) == (2, True)
    code, _, errors = run("data", "inspect", "digits", "--to", "arrays")
    assert (code, "is for data pack" in errors) == (2, True)


def test_reindex_makes_the_index_anew(tmp_path, monkeypatch):
    folder = settle(classes_of(tmp_path / "set", "a", "b", size=(9, 8)))
    monkeypatch.setenv("RESNETLAB_CACHE", str(tmp_path / "cache"))
    words = ["data", "inspect", str(folder), "--image-size", "70", "--out", str(tmp_path / "out")]
    made = []
    for more in ([], [], ["--reindex"]):
        assert main([*words, *more]) == 0
        made += [path.stat().st_mtime_ns for path in (tmp_path / "cache" / "index").glob("*.npz")]
    assert made[0] == made[1] < made[2]

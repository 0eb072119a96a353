"""``resnetlab data inspect``."""

import json

import numpy as np
from PIL import Image

from tests.data.test_folder import add
from tests.data.test_idx import NAMES, idx, make_folder


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
    assert found["duplicates"]["test in train"] == {"count": 0, "relabelled": 0, "examples": [], "names": []}


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
    assert not loaded_by(code) & {*HEAVY, "PIL", "datasets"}

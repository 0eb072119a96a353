"""Folders of images: which files, which class, which part, and what is said of the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.data import ingest
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Split, split_by_class
from resnetlab.data.decode import decode
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.folder import list_folder
from resnetlab.data.sources import load_data


def read(folder: Path, seed: int = 0, on_progress=None, **decode):
    return load_data(f"folder:{folder}", seed, DecodeConfig(**decode), on_progress)


def add(folder: Path, *names: str, size=(8, 8), level: int | None = None) -> None:
    """Images of noise, or of one grey level, at those names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(list(name.encode("utf-8", "surrogateescape")))
        pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        if level is not None:
            pixels[:] = level
        Image.fromarray(pixels).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")


def classes_of(folder: Path, *names: str, count: int = 5, **options) -> Path:
    for name in names:
        add(folder, *(f"{name}/{number}.png" for number in range(count)), **options)
    return folder


def names_of(folder: Path) -> list[tuple[str, int, str | None]]:
    return [(file.name, file.label, file.split) for file in list_folder(folder).files]


def test_classes_are_sorted_folders_and_images_may_lie_deeper(tmp_path):
    add(tmp_path, "dog/2.png", "dog/1.png", "cat/x/y/3.png", "cat/4.png")
    assert list_folder(tmp_path).classes == ("cat", "dog")
    assert names_of(tmp_path) == [
        ("cat/4.png", 0, None), ("cat/x/y/3.png", 0, None), ("dog/1.png", 1, None), ("dog/2.png", 1, None)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("part", "split"), [("val", "validation"), ("valid", "validation"), ("validation", "validation"), ("test", "test")]
)
def test_parts_of_the_folder_are_the_splits_of_their_names(tmp_path, part, split):
    add(tmp_path, "train/cat/1.png", "train/dog/2.png", f"{part}/dog/3.png")
    assert names_of(tmp_path) == [
        ("train/cat/1.png", 0, "train"), ("train/dog/2.png", 1, "train"), (f"{part}/dog/3.png", 1, split)
    ]  # fmt: skip
    data = read(tmp_path)
    assert list(data.splits) == ["train", split]
    assert data.reported_split == split
    assert (data.train.labels.tolist(), data.reported.labels.tolist()) == ([0, 1], [1])
    assert data.notes == (f"no {split} images of: cat",)


def test_all_three_parts_are_read_and_what_else_lies_there_is_named(tmp_path):
    add(tmp_path, "train/a/1.png", "train/b/1.png", "val/a/2.png", "val/b/2.png")
    (tmp_path / "docs").mkdir()
    add(tmp_path, "test/a/3.png", "test/b/3.png", "test/b/4.png")
    data = read(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "validation": 2, "test": 3}
    assert list(data.validation.names) == ["val/a/2.png", "val/b/2.png"]
    assert data.notes == ("the splits are train/, val/, test/; not read: docs",)


def test_split_is_a_fifth_of_each_class_as_of_every_set(tmp_path):
    classes_of(tmp_path, "a", "b", count=10)
    data = read(tmp_path, seed=3)
    names = [file.name for file in list_folder(tmp_path).files]
    parts = split_by_class(np.array([int(name[0] == "b") for name in names]), 3)
    for split, part in zip((data.train, data.test), parts, strict=True):
        expected = [decode(tmp_path / names[number], None).transpose(2, 0, 1) for number in part]
        assert np.array_equal(split.images.numpy(), np.stack(expected))
        assert split.labels.tolist() == [int(names[number][0] == "b") for number in part]
        assert list(split.names) == [names[number] for number in part]
    assert torch.bincount(data.test.labels).tolist() == [2, 2]
    assert read(tmp_path, seed=3).fingerprint == data.fingerprint
    assert read(tmp_path, seed=4).fingerprint["sha256"] != data.fingerprint["sha256"]


@pytest.mark.parametrize(
    ("sizes", "image_size", "side", "held"),
    [
        ([(8, 8)], None, 8, True),
        ([(8, 8)], 8, 8, True),
        ([(8, 8)], 16, 16, True),
        ([(8, 8), (9, 8)], None, 224, False),
        ([(9, 8), (8, 8)], None, 224, False),
        ([(8, 8), (9, 8)], 16, 16, True),
        ([(8, 8), (9, 8)], 65, 65, False),
        ([(8, 9)], None, 224, False),
        ([(100, 100)], None, 100, True),
        ([(100, 100)], 64, 64, True),
        ([(100, 100)], 65, 65, False),
    ],
)
def test_side_and_place_follow_from_the_sizes(tmp_path, sizes, image_size, side, held):
    for number, size in enumerate(sizes):
        add(tmp_path, *(f"{name}/{number}{index}.png" for name in "ab" for index in range(5)), size=size)
    data = read(tmp_path, image_size=image_size)
    assert data.train.shape == (3, side, side)
    assert isinstance(data.train, Split) is held
    assert isinstance(data.test, Split) is held


@pytest.mark.parametrize("workers", [0, 2])
def test_sets_too_large_for_memory_are_decoded_when_asked_for_and_hold_the_same(tmp_path, monkeypatch, workers):
    classes_of(tmp_path, "a", "b")
    monkeypatch.setattr(ingest, "MOST_ARRAY_BYTES", 3 * 8 * 8 * 10)
    held = read(tmp_path)
    assert isinstance(held.train, Split)
    monkeypatch.setattr(ingest, "MOST_ARRAY_BYTES", 3 * 8 * 8 * 10 - 1)
    data = read(tmp_path, workers=workers)
    assert isinstance(data.train, EncodedSplit)
    assert (data.train.workers, data.image_size, data.train.encoding) == (workers, 8, "lossless")
    for order in (torch.arange(len(data.train)), torch.tensor([7, 0, 7])):
        (images,) = data.train.batches([order])
        assert torch.equal(images, held.train.images[order])
    assert torch.equal(data.test.labels, held.test.labels)
    assert data.normalisation.mean == pytest.approx(held.normalisation.mean, rel=1e-14)
    assert data.normalisation.std == pytest.approx(held.normalisation.std, rel=1e-14)
    # Of the same images, the one knows the files and the other the pixels.
    assert data.fingerprint["sha256"] != held.fingerprint["sha256"]


def test_fingerprint_of_an_encoded_set_sees_one_changed_byte_a_class_and_the_side(tmp_path):
    classes_of(tmp_path, "a", "b", size=(9, 8))
    first = read(tmp_path).fingerprint
    assert read(tmp_path, workers=3).fingerprint == first
    assert read(tmp_path, image_size=225).fingerprint["sha256"] != first["sha256"]
    with open(tmp_path / "a" / "0.png", "ab") as stream:
        stream.write(b"x")
    assert read(tmp_path).fingerprint["sha256"] != first["sha256"]


@pytest.mark.parametrize(("suffixes", "encoding"), [("png", "lossless"), ("jpg", "jpeg"), ("png jpg", "mixed")])
def test_encoding_is_that_of_the_files(tmp_path, suffixes, encoding):
    for suffix in suffixes.split():
        add(tmp_path, *(f"{name}/{index}.{suffix}" for name in "ab" for index in range(9)))
    data = read(tmp_path)
    assert (data.train.encoding, data.test.encoding) == (encoding, encoding)


def test_junk_is_counted_and_bad_files_are_all_told_before_training(tmp_path):
    classes_of(tmp_path, "a", "b")
    for name in ("a/notes.txt", "a/.hidden.png", "a/Thumbs.db", "a/labels.CSV", "__MACOSX/x.png", "readme"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    data = read(tmp_path)
    assert data.notes == (
        "passed over 6 entries that are no images: "
        "1 .csv, 1 .txt, 1 Thumbs.db, 1 __MACOSX, 1 hidden, 1 outside of a class",
    )
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[:-40])
    (tmp_path / "a" / "two\nlines").write_text("no image")
    (tmp_path / "b" / "empty.jpg").touch()
    bad = r"3 of 13 images cannot be read.* --on-bad skip: a/cut\.png: .*; a/two\\nlines: .*; b/empty\.jpg: "
    with pytest.raises(DataError, match=bad):
        read(tmp_path)


def test_at_most_twenty_bad_files_are_shown_with_their_number(tmp_path):
    classes_of(tmp_path, "a", "b")
    for number in range(25):
        (tmp_path / "b" / f"broken{number}.png").touch()
    with pytest.raises(DataError, match="25 of 35 images") as caught:
        read(tmp_path)
    assert str(caught.value).endswith("; and 5 more")
    assert str(caught.value).count("b/broken") == 20


def test_skipping_gives_the_set_that_is_left(tmp_path):
    """Split and side too: a broken image of another size changes neither."""
    classes_of(tmp_path, "a", "b")
    expected = read(tmp_path).fingerprint
    add(tmp_path, "a/00.png", "b/00.png", size=(9, 9))
    for name, kept in (("a/00.png", -40), ("b/00.png", 10)):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    data = read(tmp_path, on_bad="skip")
    assert data.fingerprint == expected
    (note,) = data.notes
    assert note.startswith("2 of 12 images cannot be read and are left out: a/00.png: ")
    assert "; b/00.png: " in note


def test_a_class_whose_images_are_all_bad_is_told(tmp_path):
    classes_of(tmp_path, "a", "b")
    (tmp_path / "c").mkdir()
    for name in ("x.png", "y.png"):
        (tmp_path / "c" / name).touch()
    with pytest.raises(DataError, match="classes without images to train on: c"):
        read(tmp_path, on_bad="skip")
    with pytest.raises(DataError, match=r"c/x\.png: it is no image"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "two or more; it has none"),
        (["x.png"], "two or more; it has none"),
        (["a/1.png", "a/2.png"], "only one, a"),
        (["a/1.png", "a/2.png", "b/"], "classes without images to train on: b"),
        (["a/1.png", "a/2.png", "b/1.png"], "a single image, which cannot be split: b"),
        (["train/a/1.png", "train/b/1.png"], "neither validation/ nor test/"),
        (["train/a/1.png", "train/b/1.png", "val/1.png"], "val holds no folder of a class"),
        (["train/a/1.png", "train/b/1.png", "val/a/"], "no images in val/"),
        (["train/a/1.png", "train/b/", "val/a/1.png"], "classes without images to train on: b"),
        (["train/a/1.png", "train/b/1.png", "val/c/1.png"], "classes without images to train on: c; .*those of train/"),
        (["train/a/1.png", "val/a/1.png"], "only one, a"),
        (["data/train/a/1.png", "data/test/a/1.png"], "only one, data; if that is the set, give .*/data"),
    ],
)
def test_folders_that_no_classifier_can_learn_are_explained(tmp_path, names, message):
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir(parents=True)
        else:
            add(tmp_path, name)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("place", ["none", "file", "nul\0"])
def test_what_is_no_folder_is_refused(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be read as a folder"):
        read(tmp_path / place)


def test_links_are_followed_once_and_never_out_of_the_class_to_all_of_it(tmp_path):
    classes_of(tmp_path, "a", "b")
    for name, target in (("here", "."), ("up", ".."), ("more", "../../other")):
        (tmp_path / "a" / name).symlink_to(target)
    add(tmp_path / ".." / "other", "1.png", "deep/2.png")
    (tmp_path / ".." / "other" / "back").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "linked.png").symlink_to(tmp_path / "b" / "0.png")
    names = [name for name, label, _ in names_of(tmp_path) if label == 0]
    assert names == [*(f"a/{n}.png" for n in range(5)), "a/linked.png", "a/more/1.png", "a/more/deep/2.png"]


def test_what_is_no_file_is_listed_unopened(tmp_path):
    classes_of(tmp_path, "a", "b")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "b" / "self").symlink_to("self")
    (tmp_path / "b" / "gone.png").symlink_to("nowhere")
    assert [name for name, _ in list_folder(tmp_path).bad] == ["a/pipe.png", "b/gone.png", "b/self"]


@pytest.mark.skipif(os.geteuid() == 0, reason="the administrator may read everything")
def test_folders_and_files_without_permission_are_told(tmp_path):
    classes_of(tmp_path, "a", "b")
    (tmp_path / "a" / "locked").mkdir(0)
    (tmp_path / "b" / "0.png").chmod(0)
    with pytest.raises(DataError, match="2 of 11 images") as caught:
        read(tmp_path)
    assert "a/locked: Permission denied" in str(caught.value)
    assert "b/0.png: Permission denied" in str(caught.value)


def test_refusals_of_the_system_are_told(tmp_path, monkeypatch):
    """Stands in for folders without permission where the administrator runs the tests."""
    classes_of(tmp_path, "a", "b")
    (tmp_path / "a" / "locked").mkdir()
    real = os.scandir

    def scandir(place):
        if Path(place).name == "locked":
            raise PermissionError(13, "Permission denied")
        return real(place)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="a/locked: Permission denied"):
        read(tmp_path)


def test_progress_counts_each_image(tmp_path):
    classes_of(tmp_path, "a", "b")
    told = []
    read(tmp_path, on_progress=lambda done, total: told.append((done, total)))
    assert told == [(number, 10) for number in range(1, 11)]


def test_any_number_of_threads_reads_the_same(tmp_path):
    classes_of(tmp_path, "a", "b", count=40)
    (tmp_path / "a" / "x.png").touch()
    one, other = (read(tmp_path, on_bad="skip", workers=workers) for workers in (0, 4))
    assert one.fingerprint == other.fingerprint
    assert one.notes == other.notes


def test_names_that_cannot_be_printed_are_escaped_in_what_is_kept(tmp_path):
    classes_of(tmp_path, "new\nline", "byte\udcff", "žába")
    data = read(tmp_path)
    assert data.classes == ("byte\\udcff", "new\\nline", "žába")
    str(data.fingerprint).encode()

"""The index of a folder: what is known again is not opened, what changed is, and damage costs time alone."""

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resnetlab.core.errors import DataError
from resnetlab.data import index, ingest, opening, stamps
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import hold_out
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.sources import forget_index, load_data
from tests.data.test_folder import add, classes_of, read

WIDE = {"size": (9, 8), "image_size": 70}


@pytest.fixture
def opened(monkeypatch) -> Counter[str]:
    """How often each file was opened, by its folder and name."""
    counts: Counter[str] = Counter()

    def counting(original):
        def count(path):
            counts["/".join(str(path).split("/")[-2:])] += 1
            return original(path)

        return count

    for name in ("read_file", "_first_bytes"):
        monkeypatch.setattr(opening, name, counting(getattr(opening, name)))
    return counts


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve images of 9×8 in two classes, written a while ago."""
    return settle(classes_of(tmp_path, "a", "b", count=6, size=(9, 8)))


def settle(folder: Path) -> Path:
    """``folder``, once what was written there lies as far back as an index wants it."""
    time.sleep(2 * stamps.TICK / 1e9)
    return folder


def indices(folder: Path) -> list[Path]:
    return list(index.cache_folder().glob(f"{index._key(os.path.realpath(folder))}-*.npz"))


def test_second_start_opens_no_file_and_gives_the_same_set(folder, opened):
    first = hold_out(read(folder, image_size=70), 0)
    assert len(opened) == 12
    assert set(opened.values()) == {1}
    opened.clear()
    second = hold_out(read(folder, image_size=70, workers=2), 0)
    assert not opened
    assert second.fingerprint == first.fingerprint
    # Another division of the same files is known as well.
    assert read(folder, seed=1, image_size=70).fingerprint["sha256"] != first.fingerprint["sha256"]
    assert not opened


@pytest.mark.parametrize("change", ["content", "as it was", "new", "gone", "renamed", "time alone"])
def test_only_what_changed_is_opened_and_the_set_is_that_of_a_first_start(folder, opened, change):
    read(folder, image_size=70)
    opened.clear()
    path = folder / "a" / "2.png"
    status = path.stat()
    expected = {"a/2.png": 1}
    if change == "content":
        add(folder, "a/2.png", size=(9, 8), level=7)
    elif change == "as it was":
        # Size and time of modification of before: the time of the change of the file tells.
        content = bytearray(path.read_bytes())
        content[-20] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "new":
        add(folder, "a/new.png", size=(9, 8))
        expected = {"a/new.png": 1}
    elif change == "gone":
        path.unlink()
        expected = {}
    elif change == "renamed":
        path.rename(folder / "a" / "0.5.png")
        expected = {"a/0.5.png": 1}
    else:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    found = read(settle(folder), image_size=70, on_bad="skip")
    assert opened == expected
    opened.clear()
    forget_index(str(folder))
    assert read(folder, image_size=70, on_bad="skip").fingerprint == found.fingerprint
    assert len(opened) == len(list(folder.rglob("*.png")))


def test_side_follows_the_files_though_an_index_says_another(tmp_path, monkeypatch, opened):
    """Squares of one size too large to hold, then one of another size, and then without it again."""
    monkeypatch.setattr(ingest, "MOST_ARRAY_BYTES", 0)
    folder = settle(classes_of(tmp_path, "a", "b", count=6))
    assert read(folder).image_size == 8
    add(folder, "b/wide.png", size=(9, 8))
    settle(folder)
    opened.clear()
    assert read(folder).image_size == 224
    assert max(opened.values()) == 1
    opened.clear()
    assert read(folder).image_size == 224
    assert not opened
    (folder / "b" / "wide.png").unlink()
    again = read(folder)
    forget_index(str(folder))
    assert again.image_size == 8
    assert again.fingerprint == read(folder).fingerprint


def test_images_that_are_held_are_opened_once_at_every_start_and_no_index_is_kept(tmp_path, opened):
    folder = settle(classes_of(tmp_path, "a", "b"))
    for _ in range(2):
        read(folder)
        assert opened == dict.fromkeys(opened, 1)
        assert len(opened) == 10
        opened.clear()
    assert not indices(folder)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign", "other version", "pickled"])
def test_damaged_index_is_made_anew_and_told_in_one_line(folder, opened, damage):
    expected = read(folder, image_size=70).fingerprint
    (path,) = indices(folder)
    content = path.read_bytes()
    if damage == "foreign":
        np.savez(path, x=np.zeros(3))
    elif damage == "other version":
        with np.load(path) as file:
            np.savez(path, **(dict(file) | {"about": np.array([99.0, 70, 0])}))
    elif damage == "pickled":
        with np.load(path) as file:
            np.savez(path, **(dict(file) | {"digest": np.array([object()] * 12)}))
    else:
        middle = content.index(b"digest.npy") + 300
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes({"cut": content[:-200], "flipped": flipped, "empty": b""}[damage])
    opened.clear()
    data = read(folder, image_size=70)
    assert len(opened) == 12
    assert data.fingerprint == expected
    assert [note for note in data.notes if "was damaged" in note and "made anew" in note]
    opened.clear()
    assert read(folder, image_size=70).notes == ()
    assert not opened


def test_place_that_cannot_be_written_to_costs_the_index_alone(folder, monkeypatch, tmp_path_factory):
    blocked = tmp_path_factory.mktemp("blocked") / "file"
    blocked.touch()
    monkeypatch.setenv("RESNETLAB_CACHE", str(blocked))
    (note,) = read(folder, image_size=70).notes
    assert "is not kept, so the next start opens every file again" in note


def test_bad_files_are_told_at_every_start_and_the_others_are_known(folder, opened):
    (folder / "a" / "3.png").write_bytes(b"no image")
    settle(folder)
    for expected in (12, 1):
        with pytest.raises(DataError, match=r"1 of 12 images cannot be read.*a/3\.png"):
            read(folder, image_size=70)
        assert opened.total() == expected
        opened.clear()


def test_start_that_is_broken_off_keeps_what_it_opened(folder, opened):
    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(folder, image_size=70, on_progress=stop)
    opened.clear()
    read(folder, image_size=70)
    assert opened.total() == 7


def test_file_that_was_written_just_now_is_not_trusted(folder, opened, monkeypatch):
    """It could be written once more in the same tick of the clock."""
    monkeypatch.setattr("resnetlab.data.stamps.TICK", 10**12)
    for _ in range(2):
        opened.clear()
        read(folder, image_size=70)
        assert len(opened) == 12


@pytest.mark.parametrize("check", ["head", "none"])
def test_without_a_full_check_only_heads_and_a_sample_are_opened(folder, opened, monkeypatch, check):
    full = read(folder, image_size=70)
    forget_index(str(folder))
    monkeypatch.setattr(ingest, "SAMPLE", 4)
    opened.clear()
    data = read(folder, image_size=70, check=check)
    assert opened.total() == (12 if check == "head" else 4)
    assert data.fingerprint["check"] == data.check == check
    assert data.fingerprint["sha256"] != full.fingerprint["sha256"]
    assert [note for note in data.notes if "--check full" in note]
    assert [note for note in data.notes if "4 training images" in note]
    sample = ingest._Ingestion.__new__(ingest._Ingestion)
    sample.planned, sample.statistics = {"train": np.arange(len(data.train))}, True
    (pixels,) = data.train.batches([torch.from_numpy(sample._sample())])
    assert data.normalisation.mean == pytest.approx(pixels.double().mean(dim=(0, 2, 3)).tolist())
    opened.clear()
    again = read(folder, image_size=70, check=check)
    assert not opened
    assert again.fingerprint == data.fingerprint


def test_statistics_of_a_small_set_do_not_depend_on_the_check(folder):
    found = {check: hold_out(read(folder, image_size=70, check=check), 0) for check in ("full", "head", "none")}
    assert len({data.normalisation for data in found.values()}) == 1


def test_statistics_that_are_given_save_the_sample(folder, opened):
    standard = replace(read(folder, image_size=70).normalisation, std=(1.0, 2.0, 3.0))
    forget_index(str(folder))
    opened.clear()
    data = load_data(folder, decode=DecodeConfig(image_size=70, check="none"), standard=standard)
    assert data.normalisation == standard
    assert not opened


def test_names_and_sizes_identify_what_was_not_read(folder):
    first = read(folder, check="none").fingerprint["sha256"]
    assert read(folder, check="head", image_size=224).fingerprint["sha256"] == first
    with open(folder / "a" / "2.png", "ab") as stream:
        stream.write(b"x")
    assert read(folder, check="none").fingerprint["sha256"] != first


def test_auto_is_head_where_a_full_check_would_take_long_and_stays_so(folder, opened, monkeypatch):
    for name in ("MEASURED", "ALONE", "PATIENCE"):
        monkeypatch.setattr(ingest, name, 0)
    monkeypatch.setattr(ingest, "MOST_ARRAY_BYTES", 0)
    first = read(folder)
    assert first.check == "head"
    assert max(opened.values()) == 1
    assert [note for note in first.notes if "would take about 1 minute" in note]
    opened.clear()
    monkeypatch.setattr(ingest, "PATIENCE", 1e-9)
    assert read(folder).fingerprint == first.fingerprint
    assert not opened
    assert read(folder, check="full").check == "full"
    # All is known now.
    assert read(folder).check == "full"


@pytest.mark.parametrize("check", ["full", "head"])
def test_processes_share_the_work_and_find_the_same(tmp_path, monkeypatch, check):
    folder = classes_of(tmp_path, "a", "b", count=40, size=(9, 8))
    (folder / "a" / "3.png").write_bytes(b"no image")
    add(folder, "b/0.jpg", size=(90, 80))
    settle(folder)
    expected = read(folder, on_bad="skip", check=check)
    forget_index(str(folder))
    for name in ("MEASURED", "ALONE"):
        monkeypatch.setattr(ingest, name, 0)
    for name in ("IMAGES_AT_ONCE", "HEADS_AT_ONCE"):
        monkeypatch.setattr(ingest, name, 8)
    found = read(folder, on_bad="skip", check=check, workers=3)
    assert found.fingerprint == expected.fingerprint
    assert found.unreadable == expected.unreadable
    assert isinstance(found.train, EncodedSplit)


def test_names_of_folders_in_a_class_are_sorted_with_their_stamps(tmp_path, opened):
    add(tmp_path, "a/z.png", "a/b/x.png", "a/c.png", "a/b.png", "b/1.png", "b/2.png", size=(9, 8))
    first = read(settle(tmp_path), image_size=70)
    opened.clear()
    (tmp_path / "a" / "b" / "x.png").touch()
    settle(tmp_path)
    assert read(tmp_path, image_size=70).fingerprint == first.fingerprint
    assert opened == {"b/x.png": 1}


def test_an_entry_takes_less_than_a_hundred_bytes():
    columns = {**index.Entries(1000, 224).columns(), "stamps": np.zeros((1000, 4), np.uint64)}
    assert sum(column.nbytes for column in columns.values()) <= 100 * 1000

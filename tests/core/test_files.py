"""Faults are injected at every file operation; beside each stands a control that must fail."""

import builtins
import contextlib
import os
import random
import shutil
from pathlib import Path

import pytest

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, StorageError
from resnetlab.core.files import (
    atomic_write,
    folder_exists,
    is_vacant,
    read_folder,
    read_json,
    replace_folder,
    write_json,
)
from resnetlab.core.lock import folder_lock

OLD = {"a": b"old " * 999, "b": b"old"}
NEW = {"a": b"new " * 999, "b": b"new"}


class Crash(BaseException):
    """The process is gone: nothing may tidy up behind it."""


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int) -> dict[str, int]:
    """Make the ``number``-th operation on files, and every one after it, raise ``Crash``."""
    count = {"operations": 0}

    def guarded(function):
        def call(*args, **kwargs):
            count["operations"] += 1
            if count["operations"] >= number:
                raise Crash
            return function(*args, **kwargs)

        return call

    for owner, name in (
        (os, "replace"),
        (os, "link"),
        (os, "fsync"),
        (os, "open"),
        (builtins, "open"),
        (shutil, "rmtree"),
    ):
        monkeypatch.setattr(owner, name, guarded(getattr(owner, name)))
    monkeypatch.setattr(Path, "unlink", guarded(Path.unlink))
    return count


def write_in_place(folder: Path, contents: dict[str, bytes]) -> None:
    """The control: what ``torch.save`` to a fixed name does."""
    folder.mkdir(exist_ok=True)
    for name, data in contents.items():
        with open(folder / name, "wb") as stream:
            stream.write(data)
            os.fsync(stream.fileno())


def read_any(folder: Path) -> dict[str, bytes]:
    """What a resume would go on from."""
    return read_folder(folder, fall_back=True)[1]


def survivors(tmp_path: Path, writer, reader) -> list[bool]:
    """Crash a replacement of OLD by NEW at each operation in turn; whether one of them could then be read."""
    found = []
    for number in range(1, 1000):
        folder = tmp_path / str(number) / "last"
        folder.parent.mkdir()
        writer(folder, OLD)
        with pytest.MonkeyPatch.context() as patch:
            count = crash_at(patch, number)
            with contextlib.suppress(Crash):
                writer(folder, NEW)
            if count["operations"] < number:
                return found
        found.append(reader(folder) in (OLD, NEW))
    raise AssertionError("the write never came to an end")


def test_replace_folder_crash_at_every_operation_loses_nothing(tmp_path):
    found = survivors(tmp_path, replace_folder, read_any)
    assert len(found) > 15
    assert all(found)


def test_writing_in_place_crash_at_some_operation_loses_the_checkpoint(tmp_path):
    def reader(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    assert not all(survivors(tmp_path, write_in_place, reader))


def test_replace_folder_crash_and_then_a_second_crash_loses_nothing(tmp_path):
    for first in range(1, 40):
        for second in (1, 4, 7, 10, 13):
            folder = tmp_path / f"{first}-{second}" / "last"
            folder.parent.mkdir()
            replace_folder(folder, OLD)
            for number, contents in ((first, NEW), (second, OLD)):
                with pytest.MonkeyPatch.context() as patch:
                    crash_at(patch, number)
                    with contextlib.suppress(Crash):
                        replace_folder(folder, contents)
            assert read_any(folder) in (OLD, NEW)


def test_replace_folder_keeps_the_version_before_and_falls_back_to_it(tmp_path):
    folder = tmp_path / "last"
    replace_folder(folder, OLD)
    replace_folder(folder, NEW)
    assert read_folder(folder) == (folder, NEW)
    (folder / "a").write_bytes(b"damaged")
    assert read_folder(folder, fall_back=True) == (tmp_path / "last.previous", OLD)
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_folder(folder)
    shutil.rmtree(tmp_path / "last.previous")
    with pytest.raises(CheckpointError, match="SHA-256"):
        read_folder(folder, fall_back=True)


def test_every_flipped_bit_and_truncation_is_detected(tmp_path):
    folder = tmp_path / "last"
    replace_folder(folder, NEW)
    rng = random.Random(0)
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for _ in range(60):
            place = rng.randrange(len(whole))
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.randrange(8)
            for damaged in (bytes(flipped), whole[:place]):
                path.write_bytes(damaged)
                try:
                    _, contents = read_folder(folder)
                except CheckpointError:
                    continue
                # A manifest can be changed without a change of meaning: a blank for a tab.
                assert path.name == "manifest.json"
                assert contents == NEW
        path.write_bytes(whole)
    assert read_folder(folder)[1] == NEW


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 3}', '{"files": {"../a": {"bytes": 1, "sha256": ""}}}'])
def test_manifest_that_is_none_is_refused(tmp_path, text):
    folder = tmp_path / "last"
    replace_folder(folder, NEW)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        read_folder(folder)


def test_folder_exists_only_with_a_manifest(tmp_path):
    folder = tmp_path / "last"
    assert not folder_exists(folder)
    folder.mkdir()
    (folder / "a").write_bytes(b"a")
    assert not folder_exists(folder)
    replace_folder(folder, NEW)
    assert folder_exists(folder)


def test_atomic_write_makes_folders_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "new" / "deep" / "file.txt"
    atomic_write(path, "one")
    atomic_write(path, "two")
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_full_disk_keeps_the_old_file_and_says_what_to_do(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left.*free some space"):
        atomic_write(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot write"):
        atomic_write(tmp_path / "file" / "below", "x")


def test_json_round_trip_and_no_nan(tmp_path):
    write_json(tmp_path / "a.json", {"ä": [1.5, None]})
    assert read_json(tmp_path / "a.json") == {"ä": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_json_missing_or_damaged_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_json(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_json(tmp_path / "bad.json")


def test_folder_lock_is_held_by_one_and_let_go_at_the_end(tmp_path):
    with folder_lock(tmp_path), pytest.raises(ConfigError, match="another process"), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass


def test_folder_lock_passes_on_what_its_body_raises(tmp_path):
    with pytest.raises(BlockingIOError), folder_lock(tmp_path):
        raise BlockingIOError("a pipe of somebody else's")


def test_vacant_is_a_folder_with_nothing_but_our_own_leftovers(tmp_path):
    assert is_vacant(tmp_path / "missing")
    (tmp_path / ".lock").touch()
    (tmp_path / ".recipe.yaml.123.tmp").touch()
    assert is_vacant(tmp_path)
    (tmp_path / "thesis.tex").touch()
    assert not is_vacant(tmp_path)

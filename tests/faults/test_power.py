"""The model of a power cut, and breaks of ``core.files`` that it must find."""

import inspect
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from resnetlab.core import files, lock
from resnetlab.train import checkpoint_manager, recipe
from tests.faults.power import Disk, cuts, recorded

BREAKS = {
    "manifest before what it vouches for": (
        files.replace_folder,
        """        entries = {name: _write_summed(upcoming / name, data) for name, data in contents.items()}
        sync_folder(upcoming)
        write_json(upcoming / MANIFEST, {"files": entries})
""",
        """        contents = {name: _joined(data) for name, data in contents.items()}
        entries = {name: {"bytes": len(data), "sha256": digest(data)} for name, data in contents.items()}
        write_json(upcoming / MANIFEST, {"files": entries})
        for name, data in contents.items():
            _write_summed(upcoming / name, data)
        sync_folder(upcoming)
""",
    ),
    "oldest version gone before the newest has its name": (
        files._new_version,
        "        sync_folder(folder.parent)\n        if folder.exists():",
        "        if folder.exists():",
    ),
    "oldest version gone before the newest is written": (
        files._new_version,
        "        _settle(folder)\n",
        "        _settle(folder)\n        shutil.rmtree(previous, ignore_errors=True)\n",
    ),
    "no flush of the names of links": (files.share_folder, "        sync_folder(upcoming)\n", ""),
    "no flush of a file": (files._write_summed, "        os.fsync(stream.fileno())\n", ""),
    "no flush of the names of files": (files.replace_folder, "        sync_folder(upcoming)\n", ""),
    "no flush of a file's name": (files.atomic_stream, "        sync_folder(path.parent)\n", ""),
    "no flush of a new folder's name": (
        files.make_folder,
        "            sync_folder(place.parent)\n",
        "            pass\n",
    ),
}


def broken(function, old: str, new: str):
    source = inspect.getsource(function)
    assert old in source
    names = dict(vars(files)) | {"_joined": lambda data: data if isinstance(data, bytes) else b"".join(data)}
    exec(source.replace(old, new), names)
    return names[function.__name__]


@pytest.mark.parametrize("name", BREAKS)
def test_break_is_found_by_cuts(monkeypatch, name):
    function, old, new = BREAKS[name]
    made = broken(function, old, new)
    for module in (files, lock, checkpoint_manager, recipe):
        if hasattr(module, function.__name__):
            monkeypatch.setattr(module, function.__name__, made)
    assert not all(cuts("breaks", 100)), f"{name}: no cut lost anything"


def test_whole_code_survives_the_same_cuts():
    assert all(cuts("breaks", 100))


def cuts_between_saves(root: Path, replace: Callable[..., None]) -> list[bool]:
    """Four versions of a folder with nothing written in between, cut at every operation: is the newest saved there?"""
    (root / "real").mkdir()
    saved, found = [], []
    with recorded(root / "real") as events:
        for version in range(4):
            replace(root / "real" / "last", {"a": bytes([version]), "b": bytes(9)})
            saved.append(len(events))
    for cut in range(saved[0], len(events) + 1):
        for draw in range(6):
            disk, out = Disk(), root / f"{cut}-{draw}"
            for event in events[:cut]:
                disk.do(*event)
            disk.leave(out, random.Random(draw), draw / 5)
            done = sum(end <= cut for end in saved)
            found.append(files.read_folder(out / "last")[1]["a"][0] in (done - 1, done))
    return found


def test_version_that_was_saved_is_there_though_the_next_save_has_begun(tmp_path, monkeypatch):
    assert all(cuts_between_saves(tmp_path, files.replace_folder))
    (tmp_path / "broken").mkdir()
    flush = "        os.replace(upcoming, folder)\n        sync_folder(folder.parent)\n"
    monkeypatch.setattr(
        files, "_new_version", broken(files._new_version, flush, "        os.replace(upcoming, folder)\n")
    )
    assert not all(cuts_between_saves(tmp_path / "broken", files.replace_folder))


def test_disk_keeps_what_was_flushed_and_no_name_that_was_not(tmp_path):
    disk = Disk()
    for event in (("mkdir", "a"), ("open", "a/x"), ("write", "a/x", b"1"), ("sync", "a/x")):
        disk.do(*event)
    disk.leave(tmp_path / "1", random.Random(0), 0.0)
    assert list((tmp_path / "1").iterdir()) == []
    disk.do("sync", ".")
    disk.do("sync", "a")
    disk.do("write", "a/x", b"23")
    disk.do("rename", "a/x", "a/y")
    disk.leave(tmp_path / "2", random.Random(0), 0.0)
    assert (tmp_path / "2" / "a" / "x").read_bytes() == b"1"
    disk.leave(tmp_path / "3", random.Random(0), 1.0)
    assert (tmp_path / "3" / "a" / "y").read_bytes() in (b"1", b"123")
    assert not (tmp_path / "3" / "a" / "x").exists()

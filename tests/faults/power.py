"""A power cut: what was not flushed to the disk is gone, in whatever order the file system had kept the rest.

The operations on files of a run's first steps and of the saves of three epochs are recorded, once. For a cut, the
operations before it are replayed on a model of a disk that promises no more than POSIX does:

- The content of a file is that of its last fsync; of what was written since, nothing, half or all is there.
- The names in a folder are those of the folder's last fsync; of each name made, removed or renamed since, it is open
  whether that is there, alone and in any combination. A rename is there as a whole or not at all. The fsync of a file
  does not keep its name.

What may be left is then put into a real folder, and read as a run that resumes reads it.
"""

import builtins
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetlab.core.errors import CheckpointError, DataError
from resnetlab.core.files import folder_exists, read_folder
from resnetlab.core.lock import folder_lock
from resnetlab.train import checkpoint_manager
from resnetlab.train.folder import RECIPE, Claim, begun_settings, edited_files
from resnetlab.train.recipe import Recipe
from tests.conftest import make_data
from tests.faults import processes
from tests.faults.operations import checkpoint_manager_at, in_place, packed, save, wanted
from tests.faults.processes import Pool

EPOCHS = 3
MEMORY = Path("/dev/shm")
SHARE = 100
"""Cuts of one child."""


@dataclass
class File:
    """The content as it is read now, and as the last fsync left it."""

    content: bytes = b""
    kept: bytes = b""


@dataclass
class Folder:
    """Names as they are read now, as the last fsync left them, and each change since: a name went, one came."""

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    kept: dict[str, "File | Folder"] = field(default_factory=dict)
    since: list[tuple[str | None, str | None, "File | Folder | None"]] = field(default_factory=list)

    def change(self, gone: str | None, come: str | None = None, what: "File | Folder | None" = None) -> None:
        self.since.append((gone, come, what))
        _apply(self.names, gone, come, what)

    def sync(self) -> None:
        self.kept, self.since = dict(self.names), []


def _apply(names: dict[str, Any], gone: str | None, come: str | None, what: Any) -> None:
    if gone is not None:
        names.pop(gone, None)
    if come is not None:
        names[come] = what


class Disk:
    """The model. ``do`` takes an operation of ``recorded``; its paths are relative to the folder of the record."""

    def __init__(self) -> None:
        self.root = Folder()

    def at(self, path: str) -> "File | Folder":
        place: File | Folder = self.root
        for part in Path(path).parts:
            assert isinstance(place, Folder)
            place = place.names[part]
        return place

    def parent(self, path: str) -> Folder:
        found = self.at(str(Path(path).parent))
        assert isinstance(found, Folder)
        return found

    def do(self, kind: str, path: str, more: Any = None) -> None:
        name = Path(path).name
        if kind == "sync":
            place = self.at(path)
            if isinstance(place, Folder):
                place.sync()
            else:
                place.kept = place.content
        elif kind == "mkdir":
            self.parent(path).change(None, name, Folder())
        elif kind == "open":
            if name in self.parent(path).names:
                self.at(path).content = b""  # type: ignore[union-attr]
            else:
                self.parent(path).change(None, name, File())
        elif kind == "write":
            self.at(path).content += more  # type: ignore[union-attr]
        elif kind == "rename":
            assert Path(more).parent == Path(path).parent
            self.parent(path).change(name, Path(more).name, self.at(path))
        elif kind == "link":
            self.parent(more).change(None, Path(more).name, self.at(path))
        else:
            self.parent(path).change(name)

    def leave(self, out: Path, rng: random.Random, keep: float) -> None:
        """Write to ``out`` what a cut may leave; of what was not flushed about the share ``keep``."""
        _leave(self.root, out, rng, keep)


def _leave(folder: Folder, out: Path, rng: random.Random, keep: float) -> None:
    out.mkdir()
    names = dict(folder.kept)
    for change in folder.since:
        if rng.random() < keep:
            _apply(names, *change)
    for name, what in names.items():
        if isinstance(what, Folder):
            _leave(what, out / name, rng, keep)
            continue
        content = what.kept
        if what.content != what.kept and rng.random() < keep:
            content = what.content[: rng.choice((len(what.content) // 2, len(what.content)))]
        (out / name).write_bytes(content)


@contextmanager
def recorded(root: Path) -> Iterator[list[tuple[str, str, Any]]]:
    """Note every operation on files below ``root``, which is done all the same."""
    events: list[tuple[str, str, Any]] = []
    real = {name: getattr(os, name) for name in ("mkdir", "replace", "link", "unlink", "rmdir", "fsync", "open")}
    opened = builtins.open

    def named(handle: int) -> Path:
        return Path(f"/proc/self/fd/{handle}").readlink()

    def place(path: Any, folder: int | None = None) -> str | None:
        whole = Path(named(folder), path) if folder is not None else Path(path)
        return str(whole.relative_to(root)) if whole.is_relative_to(root) else None

    def note(kind: str, path: str | None, more: Any = None) -> None:
        if path is not None:
            events.append((kind, path, more))

    def plain(name: str, kind: str) -> Callable[..., Any]:
        def call(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
            at = place(path, dir_fd)
            done = real[name](path, *args, dir_fd=dir_fd, **kwargs)
            note(kind, at)
            return done

        return call

    def replace(source: Any, target: Any, **kwargs: Any) -> None:
        real["replace"](source, target, **kwargs)
        note("rename", place(source), place(target))

    def link(source: Any, target: Any, **kwargs: Any) -> None:
        real["link"](source, target, **kwargs)
        note("link", place(source), place(target))

    def fsync(handle: int) -> None:
        real["fsync"](handle)
        note("sync", place(named(handle)))

    def os_open(path: Any, flags: int, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> int:
        handle = real["open"](path, flags, *args, dir_fd=dir_fd, **kwargs)
        if flags & os.O_CREAT:
            note("open", place(named(handle)))
        return handle

    class Writing:
        def __init__(self, stream: Any, at: str | None) -> None:
            self.stream, self.at = stream, at

        def write(self, data: bytes) -> int:
            note("write", self.at, bytes(data))
            return self.stream.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def __enter__(self) -> "Writing":
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

    def open_(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        stream = opened(path, mode, *args, **kwargs)
        if "w" not in mode or isinstance(path, int):
            return stream
        note("open", place(path))
        return Writing(stream, place(path))

    changed = {"mkdir": plain("mkdir", "mkdir"), "unlink": plain("unlink", "unlink"), "rmdir": plain("rmdir", "unlink")}
    changed |= {"replace": replace, "link": link, "fsync": fsync, "open": os_open}
    try:
        for name, function in changed.items():
            setattr(os, name, function)
        builtins.open = open_  # type: ignore[assignment]
        yield events
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        builtins.open = opened  # type: ignore[assignment]


@dataclass
class Record:
    """The operations of a run, after how many of them each epoch was saved, and after how many it was damaged."""

    events: list[tuple[str, str, Any]]
    saved: list[int]
    begun: int
    damaged: int | None


def record_run(out: Path, damage: bool) -> Record:
    """The first steps and the saves of ``EPOCHS`` epochs, in the folder ``run/``; with ``damage`` a bit of ``last/`` is
    flipped before the last save, so that the version before it is all that there is."""
    saved, flipped, run = [], None, out / "run"
    recipe, data = Recipe(), make_data()
    with recorded(out) as events, folder_lock(run):
        Claim(recipe, run).begin(data)
        begun = len(events)
        for epoch in range(1, EPOCHS + 1):
            if damage and epoch == EPOCHS:
                content = bytearray((run / "last" / "model.safetensors").read_bytes())
                content[-1] ^= 1
                flipped = len(events)
                for event in (("open", None), ("write", bytes(content)), ("sync", None)):
                    events.append((event[0], "run/last/model.safetensors", event[1]))
            checkpoints = checkpoint_manager_at(run, epoch)
            save(checkpoints)
            saved.append(len(events))
            # As within an epoch, where nothing else is written between two saves.
            for _ in range(2):
                checkpoint_manager.replace_folder(run / "last", packed(checkpoints))
    return Record(events, saved, begun, flipped)


def power(count: int, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """``count`` cuts at random operations, each with a random part of what was not flushed.

    After each, last/ and best/ must be those of the epoch before or of the new one, whole, and last/ never newer than
    best/; what was saved is there; and the manifest of the folder vouches for nothing that is not there. In every other
    cut a bit of last/ was flipped before, and the version before it must not go before the new one is there. Control:
    files written in place, each with an fsync.
    """
    pool = pool or Pool()
    shares = [
        (processes.call, cuts, f"{seed}/{first}", min(SHARE, count - first), protected)
        for protected, total in ((True, count), (False, max(20, count // 10)))
        for first in range(0, total, SHARE)
    ]
    found = [(job[-1], held) for job, held in zip(shares, pool.map(_call, shares), strict=True)]
    held = [case for protected, cases in found if protected for case in cases]
    lost = [not case for protected, cases in found if not protected for case in cases][: max(20, count // 10)]
    return {"n": len(held), "held": sum(held), "control_n": len(lost), "control_lost": sum(lost)}


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def cuts(draw: str, count: int, protected: bool = True) -> list[bool]:
    """Whether each of ``count`` cuts was survived."""
    rng, found = random.Random(draw), []
    # The model alone decides what is lost, so that the files may lie in memory.
    place = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
    with place as name, nullcontext() if protected else in_place():
        folder = Path(name).resolve()
        records = []
        for damage in (False, True):
            (folder / f"record{damage}").mkdir()
            records.append(record_run(folder / f"record{damage}", damage and protected))
        states = [wanted(epoch) for epoch in range(1, EPOCHS + 1)]
        for number in range(count):
            found.append(_survives(folder / str(number), records[number % 2], rng, states, protected))
            shutil.rmtree(folder / str(number), ignore_errors=True)
    return found


def _survives(out: Path, record: Record, rng: random.Random, states: list[dict[str, bytes]], protected: bool) -> bool:
    cut = _draw_cut(record, rng)
    disk = Disk()
    for event in record.events[:cut]:
        disk.do(*event)
    disk.leave(out, rng, rng.choice((0.0, 0.2, 0.5, 0.8, 1.0)))
    done = sum(end <= cut for end in record.saved)
    return holds(out / "run", states, done, record.damaged is not None, cut >= record.begun, protected)


def _draw_cut(record: Record, rng: random.Random) -> int:
    """After how many operations: after any, or as often after one that removes or renames, where most can be lost."""
    first, last = 0, len(record.events)
    if record.damaged is not None:
        # Only until the next save is done does it matter that a bit was flipped.
        first, last = record.damaged + 3, record.saved[-1]
    risky = [place + 1 for place in range(first, last) if record.events[place][0] in ("unlink", "rename")]
    return rng.choice(risky) if rng.random() < 0.5 else rng.randint(first, last)


def holds(run: Path, states: list[dict[str, bytes]], done: int, damaged: bool, begun: bool, protected: bool) -> bool:
    """Whether ``run`` holds what it must when ``done`` epochs were saved, and the next perhaps in part."""
    epochs = {}
    for which in ("best", "last"):
        try:
            files = _read(run / which, protected, damaged and which == "last")
        except CheckpointError:
            return False
        whole = [epoch for epoch, state in enumerate(states, start=1) if state == files]
        if files is not None and not whole:
            return False
        epochs[which] = whole[0] if whole else 0
    if not set(epochs.values()) <= {done, done + 1}:
        return False
    if not protected:
        return True
    if begun and not (run / RECIPE).is_file():
        return False
    try:
        vouched = not (run / RECIPE).is_file() or edited_files(run, begun_settings(run)) == []
    except (CheckpointError, DataError):
        return damaged
    return vouched and epochs["last"] <= epochs["best"]


def _read(folder: Path, protected: bool, fall_back: bool) -> dict[str, bytes] | None:
    """The tensors that a resumed run would go on from. Raises ``CheckpointError`` where a manifest vouches in vain."""
    if protected:
        if not folder_exists(folder):
            return None
        files = read_folder(folder, fall_back=fall_back)[1]
    else:
        if not folder.is_dir():
            return None
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {name: data for name, data in files.items() if name.endswith(".safetensors")}

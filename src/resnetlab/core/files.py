"""How anything is written: whole or not at all.

``atomic_write`` puts one file in its place; ``replace_folder`` puts a whole folder in its place, with a manifest of
sizes and SHA-256 sums that is written last. A folder without a valid manifest does not exist for a reader.
"""

import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path
from stat import S_ISREG
from typing import IO, Any, BinaryIO

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, StorageError

MANIFEST = "manifest.json"
LOCK = ".lock"
LARGE = 1 << 20
"""Bytes of a piece that the disk begins to write at once."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Whatever the system refuses while ``path`` is written is a ``StorageError`` that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (ENOSPC, EDQUOT, EFBIG)
        remedy = "free some space there, or choose another folder" if full else "choose another folder"
        raise StorageError(f"cannot write {path}: {error.strerror or error}; {remedy}") from error


def check_place(folder: Path) -> None:
    """Make ``folder`` and, where it was not there, remove it again. Raises ``StorageError`` where the system refuses,
    so that a place that cannot be written to is known before the work, and nothing is left behind."""
    missing = missing_folders(folder)
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            made.rmdir()


def missing_folders(folder: Path) -> list[Path]:
    """``folder`` and those above it that do not exist, the innermost first."""
    return [place for place in (folder, *folder.parents) if not place.exists()]


def make_folder(folder: Path) -> None:
    """Make ``folder`` and those above it, each flushed by name: else the power takes it with all that it holds."""
    for place in reversed(missing_folders(folder)):
        place.mkdir(exist_ok=True)
        with suppress(PermissionError):  # a folder above that may be entered and not read
            sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` (or the content of a file) to disk: else a rename can be lost with the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _temporary(path: Path) -> Path:
    """A name beside ``path`` that nobody else takes, in another container with equal numbers of processes neither."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


@contextmanager
def atomic_stream(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content is put at ``path`` at the end, so that a reader, or a crash, meets the old file or the new
    one and nothing else; with an error nothing is left.

    A temporary file in the same folder, flush, fsync, rename, fsync of the folder. Missing folders are made.

    Raises ``StorageError`` where the system refuses.
    """
    temporary = _temporary(path)
    with storage_errors(path):
        make_folder(path.parent)
        try:
            with open(temporary, "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write ``content`` to ``path`` as ``atomic_stream`` does, at once."""
    with atomic_stream(path) as stream:
        stream.write(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """``atomic_write`` of JSON that any reader accepts: no NaN, no infinity."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in ``path``. Raises ``DataError`` where the file is missing or damaged."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); it was damaged or is not ours") from error


def digest(data: bytes) -> str:
    """SHA-256 as hexadecimal text."""
    return hashlib.sha256(data).hexdigest()


def replace_folder(folder: Path, contents: Mapping[str, bytes | Iterable[bytes | memoryview]]) -> None:
    """Put a new version of ``folder``, holding just ``contents``, in its place; the version before stays beside it.

    The new version is complete under ``<folder>.next`` before the old one becomes ``<folder>.previous``, so at every
    moment one of the three is whole (``read_folder`` looks at all of them). A manifest is added and written last. What
    is given in pieces goes to the disk piece by piece, and is summed up on the way. Raises ``StorageError`` where the
    system refuses.
    """
    with _new_version(folder) as upcoming:
        entries = {name: _write_summed(upcoming / name, data) for name, data in contents.items()}
        sync_folder(upcoming)
        write_json(upcoming / MANIFEST, {"files": entries})


def share_folder(source: Path, folder: Path) -> None:
    """Put a new version of ``folder`` in its place as ``replace_folder`` does, with the files that ``source`` holds.

    They lie on the disk once, as hard links, and where the file system has none they are copied. Neither folder changes
    with the other: a file is never written in place.
    """
    with _new_version(folder) as upcoming:
        for name in _manifest_entries(source):
            _link_or_copy(source / name, upcoming / name)
        sync_folder(upcoming)
        _link_or_copy(source / MANIFEST, upcoming / MANIFEST)
        sync_folder(upcoming)


@contextmanager
def _new_version(folder: Path) -> Iterator[Path]:
    """An empty ``<folder>.next`` to fill, which then takes the place of ``folder``."""
    upcoming, previous = _sibling(folder, "next"), _sibling(folder, "previous")
    with storage_errors(folder):
        _settle(folder)
        shutil.rmtree(upcoming, ignore_errors=True)
        make_folder(folder.parent)
        upcoming.mkdir(exist_ok=True)
        try:
            yield upcoming
        except BaseException:
            shutil.rmtree(upcoming, ignore_errors=True)
            raise
        # The new version must be on the disk by its name before the oldest one goes.
        sync_folder(folder.parent)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)
        os.replace(upcoming, folder)
        sync_folder(folder.parent)


def _write_summed(path: Path, data: bytes | Iterable[bytes | memoryview]) -> dict[str, int | str]:
    """Write ``data`` to the new file ``path`` and flush it; its entry in the manifest."""
    size, total = 0, hashlib.sha256()
    with open(path, "wb") as stream:
        for piece in [data] if isinstance(data, bytes) else data:
            stream.write(piece)
            if len(piece) >= LARGE and sys.platform == "linux":
                # Begins to write to the disk, and waits for nothing: the sum is taken meanwhile.
                os.posix_fadvise(stream.fileno(), size, len(piece), os.POSIX_FADV_DONTNEED)
            total.update(piece)
            size += len(piece)
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": size, "sha256": total.hexdigest()}


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        with open(source, "rb") as content:
            _write_summed(target, iter(lambda: content.read(LARGE), b""))


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A place beside ``folder`` to fill. At the end all in it is flushed and it becomes ``folder``; with an error
    nothing is left. Raises ``StorageError`` where the system refuses.
    """
    place = _temporary(folder)
    with storage_errors(folder):
        make_folder(folder.parent)
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    try:
        yield place
        with storage_errors(folder):
            for path in (*place.rglob("*"), place):
                sync_folder(path)
            os.replace(place, folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_folder(
    folder: Path, *, fall_back: bool = False, only: Collection[str] | None = None
) -> tuple[Path, dict[str, bytes]]:
    """Where the newest complete version of ``folder`` lies, and its files, or ``only`` those, every sum checked.

    With ``fall_back`` a damaged version is passed over for the one before. Raises ``CheckpointError`` where there is
    none, or a damaged one and no ``fall_back``.
    """
    faults = []
    for version in _versions(folder):
        if (version / MANIFEST).is_file():
            try:
                return version, _read_version(version, only)
            except CheckpointError as error:
                if not fall_back:
                    raise
                faults.append(str(error))
    raise CheckpointError("; ".join(faults) or f"{folder} holds no complete checkpoint (no {MANIFEST})")


def is_vacant(folder: Path) -> bool:
    """Whether ``folder`` is missing, or empty but for our own lock and what a killed process left half-written."""
    return not folder.exists() or all(
        path.name == LOCK or (path.name.startswith(".") and path.suffix == ".tmp") for path in folder.iterdir()
    )


def require_vacant(folder: Path, content: str, *marks: str) -> bool:
    """Whether ``folder`` holds a ``content`` already, known by one of the files ``marks``; if not, it is vacant.

    Raises ``ConfigError`` where it is a file, or holds anything else.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder for the {content}")
    if any((folder / mark).is_file() for mark in marks):
        return True
    if not is_vacant(folder):
        holds = f"holds no {content}" if marks else f"a {content} needs an empty one"
        raise ConfigError(f"{folder} is not empty and {holds}; choose another folder")
    return False


def forget_file(folder: Path, name: str) -> None:
    """Take ``name`` out of ``folder``: out of its manifest first, so that no reader looks for it any more.

    Raises ``CheckpointError`` where the manifest is missing or damaged, ``StorageError`` where the system refuses.
    """
    entries = _manifest_entries(folder)
    if entries.pop(name, None) is not None:
        write_json(folder / MANIFEST, {"files": entries})
    with storage_errors(folder):
        (folder / name).unlink(missing_ok=True)


def folder_exists(folder: Path) -> bool:
    """Whether any version of ``folder`` was ever completed, whole or damaged since."""
    return any((version / MANIFEST).is_file() for version in _versions(folder))


def _sibling(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _versions(folder: Path) -> tuple[Path, Path, Path]:
    """Where a whole version may lie, newest first: a complete ``next`` is one whose last rename did not happen."""
    return _sibling(folder, "next"), folder, _sibling(folder, "previous")


def _settle(folder: Path) -> None:
    """Finish the renames that a crash cut off, so that a complete ``next`` is never thrown away as a leftover."""
    upcoming, previous = _sibling(folder, "next"), _sibling(folder, "previous")
    if not (upcoming / MANIFEST).is_file():
        return
    if folder.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.replace(folder, previous)
    os.replace(upcoming, folder)
    sync_folder(folder.parent)


def _read_version(folder: Path, only: Collection[str] | None) -> dict[str, bytes]:
    files = {}
    for name, entry in _manifest_entries(folder).items():
        if only is not None and name not in only:
            continue
        data = _read_bytes(folder / name)
        if len(data) != entry["bytes"] or digest(data) != entry["sha256"]:
            raise CheckpointError(f"{folder / name} is damaged: its SHA-256 is not the one in {MANIFEST}")
        files[name] = data
    return files


def _manifest_entries(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        entries: dict[str, dict[str, Any]] = json.loads(_read_bytes(folder / MANIFEST))["files"]
        whole = all(Path(name).name == name and {"bytes", "sha256"} <= set(entry) for name, entry in entries.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged ({error})") from error
    if not whole:
        raise CheckpointError(f"{folder / MANIFEST} is damaged (an entry is not complete)")
    return entries


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


MOST_BYTES = 1 << 29


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading. Nothing else is waited for or read: a pipe would never end."""
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    status = os.fstat(stream.fileno())
    if not S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        stream.close()
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes" if S_ISREG(status.st_mode) else "it is no file")
    return stream


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most ``MOST_BYTES``."""
    with open_file(path) as stream:
        return stream.read(MOST_BYTES)


MOST_UNPACKED, ANY_RATIO, MOST_RATIO = 4 << 30, 64 << 20, 32
"""Bytes that are unpacked into memory: at most, from any file, and beyond that for each byte of the file. Images of
handwriting unpack to five times their size; a file of zeros to a thousand."""


def check_unpacked(size: int, packed: int, name: object) -> None:
    """Raise ``DataError`` where ``packed`` bytes of ``name`` would unpack to ``size`` bytes, too many for them."""
    if size > MOST_UNPACKED:
        raise DataError(f"{name} announces {size:,} bytes; at most {MOST_UNPACKED:,} are read into memory")
    if size > max(ANY_RATIO, MOST_RATIO * packed):
        raise DataError(
            f"{name} announces {size:,} bytes from {packed:,}: beyond {ANY_RATIO >> 20} MiB at most {MOST_RATIO} times "
            "the size of a file is unpacked; give it unpacked (gunzip; np.savez instead of savez_compressed)"
        )


def read_exactly(stream: IO[bytes], size: int) -> bytearray | None:
    """The ``size`` bytes that are left in a stream, in memory once; None where there are fewer or more."""
    content = bytearray(size)
    view, done = memoryview(content), 0
    while done < size:
        # What unpacks gives as much as is asked for, as a copy: little at a time.
        piece = stream.read(min(size - done, 1 << 20))
        if not piece:
            return None
        view[done : done + len(piece)] = piece
        done += len(piece)
    return None if stream.read(1) else content

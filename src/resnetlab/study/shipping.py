"""What travels with a run to a machine that does not see the driver's disk, and comes back: files as bytes."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from resnetlab.core.errors import DataError
from resnetlab.core.files import MANIFEST, atomic_write, folder_exists, read_folder, replace_folder

Files = dict[str, bytes]
"""Contents by path, relative to a folder, with ``/`` between."""

MOST_SHIPPED = 1 << 30
"""Bytes of data or weights that are sent to machines; larger ones must lie where every machine sees them."""


def pack_source(path: Path) -> Files | None:
    """The file ``path``, or all files below it; None where they have more than ``MOST_SHIPPED`` bytes. Of the folder of
    a run the best epoch alone, which is what weights are taken from."""
    below = path / "best" if (path / "best" / MANIFEST).is_file() else path
    found = [below] if below.is_file() else sorted(file for file in below.rglob("*") if file.is_file())
    if sum(file.stat().st_size for file in found) > MOST_SHIPPED:
        return None
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in found}


def files_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents."""
    content = hashlib.sha256()
    for name in sorted(files):
        content.update(f"{len(name)} {name} {len(files[name])} ".encode())
        content.update(files[name])
    return content.hexdigest()


def unpack_source(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files below ``folder``. Raises ``DataError`` for a name that leads out of it."""
    for name, content in files.items():
        atomic_write(folder / checked_name(name), content)


def pack_run(folder: Path) -> Files:
    """The run in ``folder``: its newest whole checkpoints and what stands beside them.

    The last one is read first: it says that the best one was written too. Raises ``CheckpointError`` where a checkpoint
    is damaged, or changes while it is read.
    """
    from resnetlab.train.checkpoint_manager import BEST, LAST, METRICS, TOP
    from resnetlab.train.folder import BEGUN, RECORD
    from resnetlab.train.folder import MANIFEST as BEGUN_SUMS

    packed: Files = {}
    top = sorted((folder / TOP).iterdir()) if (folder / TOP).is_dir() else []
    for name in (LAST, BEST, *(f"{TOP}/{place.name}" for place in top if "." not in place.name)):
        if folder_exists(folder / name):
            _, files = read_folder(folder / name, fall_back=True)
            packed |= {f"{name}/{file}": content for file, content in files.items()}
    for name in (*BEGUN, BEGUN_SUMS, METRICS, RECORD):
        if (folder / name).is_file():
            packed[name] = (folder / name).read_bytes()
    return packed


def unpack_run(files: Mapping[str, bytes], folder: Path) -> None:
    """Write what ``pack_run`` gave into ``folder``; the last checkpoint behind the others, a record at the very end. Of
    ``top/`` goes what is no longer among them.

    Raises ``DataError`` for a name that leads out of it, ``StorageError`` where the system refuses.
    """
    from resnetlab.train.checkpoint_manager import LAST, TOP
    from resnetlab.train.folder import RECORD

    parts: dict[str, Files] = {}
    for name, content in files.items():
        place = checked_name(name)
        parts.setdefault(place.parent.as_posix(), {})[place.name] = content
    beside = parts.pop(".", {})
    for part in sorted(parts, key=lambda part: (part == LAST, part)):
        replace_folder(folder / part, parts[part])
    for old in (folder / TOP).iterdir() if LAST in parts and (folder / TOP).is_dir() else ():
        if f"{TOP}/{old.name}" not in parts:
            shutil.rmtree(old, ignore_errors=True)
    for name in sorted(beside, key=lambda name: name == RECORD):
        atomic_write(folder / name, beside[name])


def checked_name(name: str) -> PurePosixPath:
    """The name, as one below a folder. Raises ``DataError`` where it leads out."""
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or not place.parts:
        raise DataError(f"{name!r} was sent as the name of a file, and leads out of its folder")
    return place

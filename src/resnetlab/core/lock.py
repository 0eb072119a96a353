"""The lock of a folder: who writes in it, alone or with others; the system frees it when the process ends."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from resnetlab.core.errors import BusyError, printable
from resnetlab.core.files import LOCK, make_folder, missing_folders, storage_errors

LOOK_EVERY = 0.1
"""Seconds between two looks at a lock that is busy."""


class FolderLock:
    """What this process holds of a folder: all of it, or with ``shared`` a share."""

    def __init__(self, handle: int, shared: bool) -> None:
        self._handle = handle
        self.shared = shared

    def share(self) -> None:
        """Let others share the folder from now on."""
        import fcntl

        fcntl.flock(self._handle, fcntl.LOCK_SH)
        self.shared = True

    def take(self) -> bool:
        """Whether this process holds all of the folder now; where others share it, it holds nothing any more."""
        self.shared = not _flock(self._handle, alone=True)
        return not self.shared


@contextmanager
def folder_lock(folder: Path, *, share: bool = False, patience: float = 0.0) -> Iterator[FolderLock]:
    """Hold ``folder`` for this process; the system lets go when the process ends, however it ends.

    With ``share`` it is shared where others share it, and held alone where nobody has it. A folder that is busy is
    asked for again for ``patience`` seconds. One that was made for this, and in which nothing was written, goes again.
    Raises ``BusyError`` where another process holds it, ``StorageError`` where the system refuses.
    """
    missing = missing_folders(folder)
    deadline = monotonic() + patience
    with storage_errors(folder):
        make_folder(folder)
        while (handle := _opened_lock(folder, share)) is None:
            if monotonic() > deadline:
                raise BusyError(folder, _holder(folder))
            sleep(LOOK_EVERY)
    lock = FolderLock(*handle)
    try:
        yield lock
    finally:
        if not lock.shared and [path.name for path in folder.iterdir()] == [LOCK]:
            _remove_made(folder, missing)
        os.close(handle[0])


def _opened_lock(folder: Path, share: bool) -> tuple[int, bool] | None:
    """The open lock of ``folder``, and whether it is shared; None where another process has it."""
    while True:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        shared = not _flock(handle, alone=True)
        if shared and not (share and _flock(handle, alone=False)):
            os.close(handle)
            return None
        # Whoever held it before may have removed the file since it was opened: a lock on that holds nothing.
        if (folder / LOCK).exists() and os.path.samestat(os.fstat(handle), (folder / LOCK).stat()):
            break
        os.close(handle)
    if not shared:
        with suppress(OSError):  # for others to read, on a disk that is full as well
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} on {platform.node()}".encode())
    return handle, shared


def _flock(handle: int, alone: bool) -> bool:
    """Whether the lock is ours now, alone or with others."""
    import fcntl

    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(folder: Path) -> str:
    """Who says in the lock of ``folder`` that it holds it; empty where nobody does."""
    try:
        return printable((folder / LOCK).read_text(errors="replace"))
    except OSError:
        return ""


def _remove_made(folder: Path, made: list[Path]) -> None:
    with suppress(OSError):  # what another process has put there meanwhile stays
        (folder / LOCK).unlink()
        for place in made:
            place.rmdir()


@contextmanager
def wait_for_lock(path: Path) -> Iterator[None]:
    """Hold the file ``path``, once whoever holds it lets go; the system does so for a process that ends. Nothing is
    held where the system refuses: this saves work, and guards nothing."""
    import fcntl

    handle = None
    with suppress(OSError):
        make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)

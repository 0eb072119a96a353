"""What is known of the files of a folder, kept from one start to the next: only new and changed files are opened.

A file is known again by its inode, size, and times of modification and change, all of which the listing has, so that
none is opened to ask. Its name is not among them: what is known is of the content alone. The time of change moves with
every write, even where the others are put back as they were; what escapes is a change under a clock that was set back.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resnetlab.core.errors import StorageError
from resnetlab.core.files import atomic_stream
from resnetlab.core.lock import wait_for_lock
from resnetlab.data.stamps import Stamps

UNKNOWN, HEAD, FULL = 0, 1, 2
"""What was looked at of a file: nothing; its head; all of it, with every pixel decoded."""
FORMAT, PIECE = 1, 1 << 16


class Entries:
    """What is known of ``count`` images, a row each: what was ``checked``, the side of a ``square`` (0 for others),
    whether it is ``lossy``, the SHA-256 of its file, and of its pixels at ``side`` the sum and the sum of squares of
    each channel."""

    def __init__(self, count: int, side: int) -> None:
        self.checked = np.zeros(count, np.uint8)
        self.square = np.zeros(count, np.uint16)
        self.lossy = np.zeros(count, bool)
        self.digest = np.zeros((count, 32), np.uint8)
        self.cut_to(side)

    def cut_to(self, side: int) -> None:
        """Take another side: what is known of the pixels at the one before is forgotten."""
        self.side = side
        self.checked[self.checked == FULL] = HEAD
        self.sums = np.zeros((len(self.checked), 3), np.min_scalar_type(255 * side**2))
        self.squares = np.zeros((len(self.checked), 3), np.min_scalar_type(255**2 * side**2))

    def columns(self) -> dict[str, NDArray[np.generic]]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}


@dataclass
class Index:
    """The index of the folder ``place`` for images of ``image_size`` (None: their own), in the cache folder.

    ``note`` is what should be said of it: that it was damaged, or could not be kept.
    """

    place: str
    image_size: int | None
    stamps: Stamps
    note: str = ""
    path: Path | None = field(init=False)

    def __post_init__(self) -> None:
        folder = cache_folder()
        self.path = folder and folder / f"{_key(self.place)}-{self.image_size or 'own'}.npz"

    def read(self) -> tuple[Entries, float] | None:
        """What is known of the files, and the seconds that a full check would take if it was put off; None where there
        is no index, or one that cannot be read."""
        try:
            return None if self.path is None or not self.path.is_file() else self._read(self.path)
        except Exception as error:  # a damaged file can fail in any way
            self.note = f"the index of {self.place} was damaged ({type(error).__name__}) and is made anew"
            return None

    def _read(self, path: Path) -> tuple[Entries, float]:
        # Of a damaged file numpy would leave its own stream open.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            form, side, seconds = file["about"].tolist()
            if form != FORMAT or not 0 < side <= 1 << 16:
                raise ValueError("another version")
            entries = Entries(len(self.stamps), int(side))
            inodes = file["inode"]
            if not len(inodes):
                return entries, seconds
            rows = np.minimum(np.searchsorted(inodes, self.stamps.inodes), len(inodes) - 1)
            known = np.ones(len(rows), bool)
            for name, column in self.stamps.columns().items():
                known &= file[name][rows] == column
            numbers = np.flatnonzero(known)
            for name, column in entries.columns().items():
                kept = file[name]
                if kept.dtype != column.dtype or kept.shape != (len(inodes), *column.shape[1:]):
                    raise ValueError(f"{name} is no column of it")
                for some in np.array_split(numbers, len(numbers) // PIECE + 1):
                    column[some] = kept[rows[some]]
        return entries, seconds

    def write(self, entries: Entries, seconds: float) -> None:
        """Keep what is known; a place that cannot be written to is told in ``note``."""
        if self.path is None or not entries.checked.any():
            return
        kept = np.flatnonzero((entries.checked > UNKNOWN) & self.stamps.settled())
        stamps = self.stamps.columns()
        # Of a file with several names what is known most of comes first, where it is found.
        kept = kept[np.lexsort((FULL - entries.checked[kept], stamps["inode"][kept]))]
        columns = {name: column[kept] for name, column in {**stamps, **entries.columns()}.items()}
        try:
            with atomic_stream(self.path) as stream:
                np.savez(stream, allow_pickle=False, about=np.array([FORMAT, entries.side, seconds]), **columns)
        except StorageError as error:
            self.note = f"the index of {self.place} is not kept, so the next start opens every file again: {error}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for another process that makes this index, and hold it: what that one has opened need not be opened
        again. Where no lock is to be had, nothing is waited for."""
        if self.path is None:
            yield
            return
        with wait_for_lock(self.path.with_suffix(".lock")):
            yield


def _key(place: str) -> str:
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:24]


def cache_folder() -> Path | None:
    """Where indices are kept: ``$RESNETLAB_CACHE``, else ``resnetlab`` in ``$XDG_CACHE_HOME`` or ``~/.cache``; None
    where there is no home."""
    if given := os.environ.get("RESNETLAB_CACHE"):
        return Path(given) / "index"
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "resnetlab" / "index"
    except RuntimeError:
        return None


def forget(place: str) -> None:
    """Remove the indices of a folder, of every size."""
    folder = cache_folder()
    for path in () if folder is None else folder.glob(f"{_key(place)}-*.npz"):
        with suppress(OSError):
            path.unlink()

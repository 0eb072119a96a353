"""Opening every image of a folder once, before training: what cannot be read, what the rest are, how bright."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import NDArray

from resnetlab.core.files import digest, read_file
from resnetlab.data.image import Pixels, image_size, read_image, reason
from resnetlab.data.tree import File

Given = TypeVar("Given")
Made = TypeVar("Made")
Tick = Callable[[], None]
AHEAD = 1024
"""Files that wait for a thread; more would hold their results in memory."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image that was read: its file, what the file is, and the image's own size, turned as EXIF says."""

    file: File
    bytes: int
    sha256: str
    width: int
    height: int
    lossy: bool


@dataclass(frozen=True, kw_only=True)
class Index:
    """The images of one part, in the order of their files, and ``bad`` files with the reason.

    ``levels`` ``(3, 256)`` counts the grey levels of the images that were read, at the wanted side; ``pixels``
    ``(N, 3, H, W)`` are those images, where they were to be kept.
    """

    entries: list[Entry]
    bad: list[tuple[str, str]]
    levels: NDArray[np.int64]
    pixels: Pixels | None


def scan_sizes(
    folder: Path, files: Sequence[File], *, workers: int = 0, on_file: Tick | None = None
) -> tuple[dict[File, tuple[int, int]], list[tuple[str, str]]]:
    """Width and height that the heads of the files give, and what has no such head, with the reason."""
    sizes: dict[File, tuple[int, int]] = {}
    bad: list[tuple[str, str]] = []
    found = _in_threads(lambda file: _attempt(image_size, folder / file.name), files, workers)
    for file, size in zip(files, found, strict=True):
        if isinstance(size, str):
            bad.append((file.name, size))
        else:
            sizes[file] = size
        if on_file:
            on_file()
    return sizes, bad


def scan_folder(
    folder: Path,
    files: Sequence[File],
    *,
    side: int,
    keep: bool = False,
    workers: int = 0,
    on_file: Tick | None = None,
) -> Index:
    """Decode each of ``files`` once, cut to ``side``; with ``keep`` the pixels stay in memory.

    ``workers`` threads share the work, Pillow decodes without Python's lock. The result is the same for any number.
    """
    entries: list[Entry] = []
    bad: list[tuple[str, str]] = []
    levels = np.zeros((3, 256), np.int64)
    kept = np.empty((len(files), 3, side, side), np.uint8) if keep else None
    found = _in_threads(lambda file: _attempt(_read, folder, file, side, keep), files, workers)
    for file, result in zip(files, found, strict=True):
        if isinstance(result, str):
            bad.append((file.name, result))
        else:
            entry, counts, pixels = result
            if kept is not None and pixels is not None:
                kept[len(entries)] = pixels
            entries.append(entry)
            levels += counts
        if on_file:
            on_file()
    return Index(entries=entries, bad=bad, levels=levels, pixels=None if kept is None else kept[: len(entries)])


def _read(folder: Path, file: File, side: int, keep: bool) -> tuple[Entry, NDArray[np.int64], Pixels | None]:
    content = read_file(folder / file.name)
    image = read_image(content, side)
    channels = image.pixels.transpose(2, 0, 1)
    counts = np.stack([np.bincount(values.ravel(), minlength=256) for values in channels])
    entry = Entry(
        file=file,
        bytes=len(content),
        sha256=digest(content),
        width=image.width,
        height=image.height,
        lossy=image.lossy,
    )
    return entry, counts, channels if keep else None


def _attempt(read: Callable[..., Made], *arguments: object) -> Made | str:
    """What ``read`` gives, or in words why it cannot."""
    try:
        return read(*arguments)
    except Exception as error:
        return reason(error)


def _in_threads(function: Callable[[Given], Made], given: Iterable[Given], workers: int) -> Iterator[Made]:
    """``map`` in so many threads, results in order; without threads for 0 and 1."""
    if workers < 2:
        yield from map(function, given)
        return
    remaining = iter(given)
    with ExitStack() as stack:
        # Threads that end their own ``catch_warnings`` in another order than they began would leave its filter behind.
        stack.enter_context(catch_warnings())
        simplefilter("ignore")
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        while some := list(islice(remaining, AHEAD)):
            yield from pool.map(function, some)

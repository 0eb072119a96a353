"""Opening encoded images: the head of a file, or all of it, here or in processes that share the work."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from resnetlab.core.files import open_file, read_file
from resnetlab.data.dataset import Numbers, SplitName
from resnetlab.data.decode import FORMATS, MOST_PIXELS, Pixels, check_size, is_lossy, read_image, reason
from resnetlab.data.processes import answers_of
from resnetlab.data.stamps import Stamps

HEAD_BYTES = 4096
"""Of a JPEG: its size mostly stands there. Where it does not, Pillow reads as far as it needs."""
Head = tuple[int, bool]
Seen = TypeVar("Seen")
LEVELS = np.arange(256, dtype=np.uint64)


@dataclass(frozen=True, kw_only=True)
class EncodedSet:
    """What a reader of encoded images hands over: ``cells`` (bytes or paths), ``labels`` and ``names``, by number.

    ``divide`` gives the numbers of each split out of those of the images that can be read, both rising; ``judge`` the
    reasons not to train on these. ``folders`` is whether each class is a folder. ``spell`` puts SHA-256 sums, one after
    another, as they identify the set. ``known`` are, for files, the key of their index and their stamps. ``bad`` is
    what the reader met that is no image, with the reason.
    """

    source: str
    classes: tuple[str, ...]
    cells: Sequence[bytes | Path]
    labels: Numbers
    names: Sequence[str]
    divide: Callable[[Numbers], dict[SplitName, Numbers]]
    spell: Callable[[bytes], bytes] = lambda digests: digests
    judge: Callable[[Mapping[SplitName, Numbers]], list[str]] = lambda _: []
    folders: bool = False
    known: tuple[str, Stamps] | None = None
    bad: Sequence[tuple[str, str]] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An image that was read: the SHA-256 of its file, its ``square`` (its side, or 0 where it is none), whether it is
    ``lossy``, its pixels ``(side, side, 3)`` where they are wanted, and of each channel their sum and the sum of their
    squares."""

    digest: bytes
    square: int
    lossy: bool
    side: int
    pixels: Pixels | None
    sums: NDArray[np.uint64]
    squares: NDArray[np.uint64]


@dataclass(frozen=True)
class Cut:
    """How images are cut: those that are squares of side ``own`` stay whole, the others become ``fallback``; with
    ``own`` None all stay whole. ``pixels`` says whether they are wanted."""

    own: int | None
    fallback: int
    pixels: bool


def open_image(content: bytes, cut: Cut) -> Opened | str:
    """The image, or in words why it cannot be read."""
    try:
        image = read_image(content, cut.own and cut.fallback, own=cut.own, thorough=True)
    except Exception as error:  # a damaged image can fail in any way
        return reason(error)
    counts = np.array(Image.fromarray(image.pixels).histogram(), np.uint64).reshape(3, 256)
    return Opened(
        digest=hashlib.sha256(content).digest(),
        square=image.width if image.width == image.height else 0,
        lossy=image.lossy,
        side=len(image.pixels),
        pixels=image.pixels if cut.pixels else None,
        sums=counts @ LEVELS,
        squares=counts @ LEVELS**2,
    )


def read_cell(cell: bytes | Path) -> bytes | str:
    """The content of a file, or in words why it cannot be read."""
    try:
        return cell if isinstance(cell, bytes) else read_file(cell)
    except (OSError, ValueError) as error:
        return reason(error)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_cell(cells: Sequence[bytes | Path], cut: Cut, number: int) -> Opened | str:
    """Image ``number``, from its file; or in words why it cannot be read."""
    content = read_cell(cells[number])
    return content if isinstance(content, str) else open_image(content, cut)


def in_pieces(look: Callable[[int], Seen], numbers: Numbers, at_once: int, workers: int) -> Iterator[tuple[int, Seen]]:
    """Each number with what ``look`` gives for it, in order; ``workers`` processes look at so many ``at_once``.

    Raises ``DataError`` where a process was killed.
    """
    pieces = _Pieces(look, numbers, at_once)
    with closing(answers_of(pieces, range(len(pieces)), min(workers, len(pieces)))) as made:
        for some in made:
            yield from some


class _Pieces(Dataset[Any]):
    def __init__(self, look: Callable[[int], Any], numbers: Numbers, at_once: int) -> None:
        self.look, self.numbers, self.at_once = look, numbers, at_once

    def __len__(self) -> int:
        return -(-len(self.numbers) // self.at_once)

    def __getitem__(self, piece: int) -> list[tuple[int, Any]]:
        some = self.numbers[piece * self.at_once : (piece + 1) * self.at_once].tolist()
        return [(number, self.look(number)) for number in some]


def read_head(cell: bytes | str | Path) -> Head | str:
    """The side of a square image (0 for others) and whether it is lossy, by its head alone; or in words why it is none
    that can be read."""
    try:
        head = cell if isinstance(cell, bytes) else _first_bytes(cell)
        if (size := _jpeg_size(head)) is not None and 0 < size[0] * size[1] <= MOST_PIXELS // 2:
            return size[0] if size[0] == size[1] else 0, True
        with (
            BytesIO(cell) if isinstance(cell, bytes) else open_file(Path(cell)) as stream,
            Image.open(stream, formats=FORMATS) as image,
        ):
            check_size(image)
            # Of WebP any of its chunks may say it.
            content = read_cell(cell if isinstance(cell, bytes) else Path(cell)) if image.format == "WEBP" else b""
            return image.width if image.width == image.height else 0, is_lossy(image, content)  # type: ignore[arg-type]
    except Exception as error:
        return reason(error)


def _first_bytes(path: str | Path) -> bytes:
    # No pipe: it was listed as a regular file.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(handle, HEAD_BYTES)
    finally:
        os.close(handle)


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, in its frame header (SOF); None where that does not stand in ``head``."""
    if head[:3] != b"\xff\xd8\xff":
        return None
    place = 2
    while place + 9 <= len(head) and head[place] == 0xFF:
        marker = head[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = head[place + 5] << 8 | head[place + 6], head[place + 7] << 8 | head[place + 8]
            return width, height
        place += 2 + (head[place + 2] << 8 | head[place + 3])
    return None

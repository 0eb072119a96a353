"""From encoded images to splits: each image is opened once, judged, and held in memory or left encoded."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from resnetlab.core.errors import DataError
from resnetlab.core.files import read_file
from resnetlab.data.classes import LISTED, Refuse, raise_it
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import Chosen, Encoding, ImageData, Images, Numbers, Split, SplitName
from resnetlab.data.decode import DecodedImage, Pixels, in_threads, read_image, reason
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.processes import Workers

MOST_ARRAY_BYTES = 1 << 30
"""Decoded images of all splits together that are held in memory; those that turn out bad count too."""
SMALL = 64
"""Images cut to at most this side are held in memory whatever their own size is."""
USUAL_SIDE = 224
"""Side of images that have no common one of their own."""
RETAINED_BYTES = 256 << 20
"""Files that are kept while they may have to be decoded again, so that they need not be opened again."""
CHANNELS = 3
NEARLY_GREY = 8
"""Grey levels by which the channels of a grey JPEG may differ."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class EncodedSet:
    """What a reader of encoded images hands over: ``cells`` (bytes or paths), ``labels`` and ``names``, by number.

    ``divide`` gives the numbers of each split out of those of the images that can be read, both rising; ``judge`` the
    reasons not to train on these. ``folders`` is whether each class is a folder. ``digest`` makes of a file what
    identifies it. ``bad`` is what the reader met that is no image, with the reason.
    """

    source: str
    classes: tuple[str, ...]
    cells: Sequence[bytes | Path]
    labels: Numbers
    names: Sequence[str]
    divide: Callable[[Numbers], dict[SplitName, Numbers]]
    digest: Callable[[bytes], bytes]
    judge: Callable[[Mapping[SplitName, Numbers]], list[str]] = lambda _: []
    folders: bool = False
    bad: Sequence[tuple[str, str]] = ()
    notes: tuple[str, ...] = ()


def ingest(
    given: EncodedSet,
    decode: DecodeConfig,
    on_progress: Progress | None = None,
    refuse: Refuse = raise_it,
    check: Callable[[Mapping[SplitName, Numbers]], None] = lambda _: None,
) -> ImageData:
    """The images of ``given``; ``decode.workers`` threads open them, and the result is the same for any number.

    The side is ``decode.image_size``; by default the images' own where all are squares of one size, else 224. In memory
    are sets up to 1 GiB whose images have that size, or are cut to at most 64 pixels; others are decoded when asked
    for. ``on_progress`` is told how many of how many images were read.

    Refuses, with their list, images that cannot be read, unless ``on_bad`` is to skip them. ``check`` is given the
    numbers of each split before any image is opened, and again without those that cannot be read.
    """
    state = _Ingestion(given, decode)
    check(state.planned)
    for done in state.read():
        if on_progress:
            on_progress(done, state.count)
    unreadable, left_out = state.judge(refuse)
    chosen = state.chosen()
    check(chosen)
    splits = state.splits(chosen)
    return ImageData(
        source=given.source,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        classes=given.classes,
        notes=(*given.notes, *left_out),
        unreadable=unreadable,
    )


LOOKED_AT = 48
"""Images by which ``glance`` judges a set."""


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What some images of a set are like: the median ``side``, the shorter one, in pixels, and whether all are
    ``grey``."""

    side: int
    grey: bool


def glance(given: EncodedSet, numbers: Numbers) -> Glance:
    """What images of those numbers are like, by ``LOOKED_AT`` of them, evenly spread. Those that cannot be read are
    passed over. Raises ``DataError`` where none can."""
    sides, grey = [], True
    spread = np.linspace(0, len(numbers) - 1, min(LOOKED_AT, len(numbers))).round().astype(int)
    for number in numbers[spread]:
        cell = given.cells[int(number)]
        try:
            image = read_image(cell, SMALL)
        except Exception:  # what is wrong with it is told when all are read
            continue
        sides.append(min(image.width, image.height))
        grey = grey and bool((image.pixels.max(axis=2) - image.pixels.min(axis=2)).max() <= NEARLY_GREY)
    if not sides:
        raise DataError(f"{given.source}: none of {len(spread)} images that were looked at can be read")
    return Glance(side=int(np.median(sides)), grey=grey)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """An image that was read: its file, and how often each of its grey levels occurs, ``(3, 256)``."""

    content: bytes
    digest: bytes
    image: DecodedImage
    levels: NDArray[np.int64]


class _Ingestion:
    """What is known of the images so far, in rows: the order in which the splits would hold them if none were bad.

    As long as all images are squares of one size, that is their side. Where another comes, ``fallback`` is, and those
    before are decoded again: from files that were retained, so none is opened again unless these have more than
    ``RETAINED_BYTES``. To read the heads of all files first would open each twice.
    """

    def __init__(self, given: EncodedSet, decode: DecodeConfig) -> None:
        self.given, self.decode, self.count = given, decode, len(given.labels)
        self.planned = given.divide(np.arange(self.count))
        self.order = np.concatenate(list(self.planned.values()))
        self.part = np.repeat(np.arange(len(self.planned)), [len(numbers) for numbers in self.planned.values()])
        self.fallback = decode.image_size or USUAL_SIDE
        self.side = decode.image_size
        self.uniform = True
        self.bad: dict[int, str] = {}
        self.digests: list[bytes] = [b""] * self.count
        self.lossy = np.zeros(self.count, bool)
        self.levels = np.zeros((len(self.planned), CHANNELS, 256), np.int64)
        self.pixels: Pixels | None = None
        self.retained: dict[int, bytes] = {}
        self.room = RETAINED_BYTES
        self.waiting: list[Workers] = []

    def read(self) -> Iterator[int]:
        """Read every image; yields how many were."""
        rows, done = iter(range(self.count)), 0
        # By itself, until one can be read: its size is what the others are expected to have.
        while self.side is None and (row := next(rows, None)) is not None:
            self._take(row, self._open(row))
            yield (done := done + 1)
        for row, found in self._open_all(rows):
            self._take(row, found)
            yield (done := done + 1)

    def _open_all(self, rows: Iterable[int]) -> Iterator[tuple[int, _Opened | str]]:
        return in_threads(lambda row: (row, self._open(row)), rows, self.decode.workers)

    def _open(self, row: int, content: bytes | None = None) -> _Opened | str:
        """The image of a row, from its file where that is not at hand, or in words why it cannot be read."""
        own = self.side
        try:
            cell = content or self.retained.get(row) or self.given.cells[int(self.order[row])]
            content = cell if isinstance(cell, bytes) else read_file(cell)
            image = read_image(content, own and self.fallback, own=own, thorough=True)
        except Exception as error:  # a damaged image can fail in any way
            return reason(error)
        channels = image.pixels.reshape(-1, CHANNELS).T
        levels = np.stack([np.bincount(values, minlength=256) for values in channels])
        return _Opened(content=content, digest=self.given.digest(content), image=image, levels=levels)

    def _take(self, row: int, found: _Opened | str) -> None:
        if not isinstance(found, str):
            size = found.image.width, found.image.height
            self.side = self.side or size[0]
            if self.uniform and size != (self.side, self.side):
                self._turn_mixed(row)
            if found.image.pixels.shape[:2] != (self.side, self.side):
                # Opened while the side was another.
                found = self._open(row, found.content)
        if isinstance(found, str):
            self.bad[int(self.order[row])] = found
            self.digests[row] = b""
            return
        self.digests[row], self.lossy[row] = found.digest, found.image.lossy
        self.levels[self.part[row]] += found.levels
        self._hold(row, found.image.pixels)
        if self._may_come_again and len(found.content) <= self.room and row not in self.retained:
            self.retained[row] = found.content
            self.room -= len(found.content)

    @property
    def _may_come_again(self) -> bool:
        """Whether images may be decoded again: at another side, or as one of another split without the bad ones."""
        return self.decode.on_bad == "skip" or (self.uniform and self.decode.image_size is None)

    def _turn_mixed(self, row: int) -> None:
        self.uniform = False
        if self.side != self.fallback:
            self.side = self.fallback
            self.levels[:] = 0
            for earlier, found in self._open_all([each for each in range(row) if self.digests[each]]):
                self._take(earlier, found)
        if not self._may_come_again:
            self.retained.clear()

    def _hold(self, row: int, pixels: Pixels) -> None:
        """Keep the pixels where all are to be kept: they fit, and are whole (not cut or resized), or small."""
        side = len(pixels)
        if not (self.uniform or side <= SMALL) or self.count * CHANNELS * side**2 > MOST_ARRAY_BYTES:
            self.pixels = None
            return
        if self.pixels is None:
            self.pixels = np.empty((self.count, CHANNELS, side, side), np.uint8)
        self.pixels[row] = pixels.transpose(2, 0, 1)

    def judge(self, refuse: Refuse) -> tuple[tuple[tuple[str, str], ...], list[str]]:
        """The bad images, and what should be said of them. Refuses them, with their list, unless they are skipped."""
        given = self.given
        bad = (*given.bad, *((given.names[number], why) for number, why in sorted(self.bad.items())))
        lines = [f"{name}: {why}" for name, why in bad[:LISTED]]
        if len(bad) > LISTED:
            lines.append(f"and {len(bad) - LISTED} more")
        head = f"{len(bad)} of {self.count + len(given.bad)} images cannot be read"
        if bad and self.decode.on_bad == "error":
            remedy = "repair or remove them, or leave them out with --on-bad skip"
            refuse(f"{given.source}: {head}; {remedy}: {'; '.join(lines)}")
        return bad, [f"{head} and are left out: {'; '.join(lines)}"] if bad else []

    def chosen(self) -> dict[SplitName, Numbers]:
        """The numbers of each split's images, without the bad ones."""
        if not self.bad:
            return self.planned
        return self.given.divide(np.delete(np.arange(self.count), list(self.bad)))

    def splits(self, chosen: dict[SplitName, Numbers]) -> dict[SplitName, Images]:
        """The images of those numbers."""
        row_of = np.argsort(self.order)
        rows = [row_of[numbers] for numbers in chosen.values()]
        if self.pixels is None:
            self._move_levels(rows)
        return {name: self._split(place, numbers, rows[place]) for place, (name, numbers) in enumerate(chosen.items())}

    def _move_levels(self, rows: list[Numbers]) -> None:
        """Count images that came into another split than was planned, since others are bad, where they are now."""
        now = {int(row): place for place, some in enumerate(rows) for row in some if self.part[row] != place}
        for row, found in self._open_all(now):
            if isinstance(found, str):
                raise DataError(f"{self.given.names[int(self.order[row])]} cannot be read any more: {found}")
            self.levels[self.part[row]] -= found.levels
            self.levels[now[row]] += found.levels

    def _split(self, place: int, numbers: Numbers, rows: Numbers) -> Images:
        lossy = set(self.lossy[rows].tolist())
        encoding: Encoding = "mixed" if len(lossy) > 1 else "jpeg" if True in lossy else "lossless"
        labels = torch.from_numpy(self.given.labels[numbers])
        names, store = Chosen(self.given.names, numbers), Chosen(self.given.cells, numbers)
        if self.pixels is not None:
            start = int(np.searchsorted(self.part, place))
            # A view where it can be one: a copy would hold the set twice.
            images = self.pixels[rows] if self.bad else self.pixels[start : start + len(rows)]
            return Split(images=torch.from_numpy(images), labels=labels, encoding=encoding, names=names, store=store)
        identity = hashlib.sha256()
        for row in rows:
            identity.update(self.digests[row])
        return EncodedSplit(
            store=store,
            labels=labels,
            side=self.side or self.fallback,
            levels=torch.from_numpy(self.levels[place]).double(),
            identity=identity.hexdigest(),
            encoding=encoding,
            workers=self.decode.workers,
            names=names,
            waiting=self.waiting,
        )

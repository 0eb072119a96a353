"""From encoded images to splits: each image is opened once, judged, and held in memory or left encoded."""

import hashlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import torch

from resnetlab.core.randomness import generator
from resnetlab.data.classes import LISTED, Refuse, raise_it
from resnetlab.data.config import Checked, DecodeConfig
from resnetlab.data.dataset import (
    Chosen,
    Encoding,
    ImageData,
    Images,
    Moments,
    Normalisation,
    Numbers,
    Split,
    SplitName,
)
from resnetlab.data.decode import Pixels
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.index import FULL, HEAD, UNKNOWN, Entries, Index
from resnetlab.data.opening import (
    Cut,
    EncodedSet,
    Head,
    Opened,
    cores,
    in_pieces,
    open_cell,
    open_image,
    read_cell,
    read_head,
)
from resnetlab.data.processes import Workers
from resnetlab.data.stamps import Paths

MOST_ARRAY_BYTES = 1 << 30
"""Decoded images of all splits together that are held in memory; those that turn out bad count too."""
SMALL = 64
"""Images cut to at most this side are held in memory whatever their own size is."""
USUAL_SIDE = 224
"""Side of images that have no common one of their own."""
RETAINED_BYTES = 256 << 20
"""Files that are kept while they may have to be decoded again, so that they need not be opened again."""
SAMPLE = 2048
"""Training images of which mean and standard deviation are taken where not all images are decoded."""
MEASURED, ALONE = 0.25, 1.0
"""Seconds after which it is known how long the rest will take, and of work that processes are not worth."""
PATIENCE = 60.0
"""Seconds that a full check may take before the heads have to do."""
IMAGES_AT_ONCE, HEADS_AT_ONCE, PIECE = 32, 1024, 1 << 16
"""Images that a process decodes, or whose heads it reads, before it hands over; and that are identified at once."""
CHANNELS = 3

Progress = Callable[[int, int], None]
Seen = TypeVar("Seen")


def ingest(
    given: EncodedSet,
    decode: DecodeConfig,
    on_progress: Progress | None = None,
    refuse: Refuse = raise_it,
    check: Callable[[Mapping[SplitName, Numbers]], None] = lambda _: None,
    standard: Normalisation | None = None,
) -> ImageData:
    """The images of ``given``; all cores open them, or ``decode.workers``, and the result is the same for any number.

    The side is ``decode.image_size``; by default the images' own where all are squares of one size, else 224. In memory
    are sets up to 1 GiB whose images have that size, or are cut to at most 64 pixels; others are decoded when asked
    for, and of those that are files an index is kept, so that the next start opens new and changed ones alone.
    ``on_progress`` is told how many of how many images were read.

    With ``decode.check`` "head" or "none" no image is held in memory. ``standard`` are the statistics to standardise
    by, where no others are needed.

    Refuses, with their list, images that cannot be read, unless ``on_bad`` is to skip them. ``check`` is given the
    numbers of each split before any image is opened, and again without those that cannot be read.
    """
    state = _Ingestion(given, decode, standard is None)
    check(state.planned)
    if not state.recall():
        with state.index.alone() if state.index else nullcontext():
            if not state.recall():
                try:
                    for done in state.read():
                        if on_progress:
                            on_progress(done, state.count)
                finally:
                    # Also what a start that is broken off has opened.
                    state.keep()
    unreadable, left_out = state.judge(refuse)
    chosen = state.chosen()
    check(chosen)
    splits = {name: state.split(numbers) for name, numbers in chosen.items()}
    return ImageData(
        source=given.source,
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        classes=given.classes,
        notes=(*given.notes, *left_out, *state.notes()),
        unreadable=unreadable,
        standard=standard,
        check=state.check,
    )


class _Ingestion:
    """What is known of the images so far, and what is to be known of them.

    As long as all images are squares of one size, that is their side. Where another comes, ``fallback`` is, and those
    before are decoded again: from files that were retained, so none is opened again unless these have more than
    ``RETAINED_BYTES`` or processes opened them. To read the heads of all files first would open each twice.
    """

    def __init__(self, given: EncodedSet, decode: DecodeConfig, statistics: bool) -> None:
        self.given, self.decode, self.statistics, self.count = given, decode, statistics, len(given.labels)
        self.planned = given.divide(np.arange(self.count))
        self.order = np.concatenate(list(self.planned.values()))
        self.workers = decode.workers or cores()
        self.check: Checked = "full" if decode.check == "auto" else decode.check
        self.seconds = 0.0
        self.fallback = decode.image_size or USUAL_SIDE
        self.index = given.known and Index(given.known[0], decode.image_size, given.known[1])
        self._begin()

    def _begin(self) -> None:
        self.side = self.fallback if self.check == "none" else self.decode.image_size
        self.uniform = self.check != "none"
        self.entries = Entries(self.count, self.fallback)
        self.bad: dict[int, str] = {}
        self.done = 0
        self.pixels: Pixels | None = None
        self.retained: dict[int, bytes] = {}
        self.room = RETAINED_BYTES
        self.waiting: list[Workers] = []

    def recall(self) -> bool:
        """Take from the index what it has; whether that is all that is wanted."""
        found = self.index and self.index.read()
        if not found:
            return False
        self.entries, self.seconds = found
        checked = self.entries.checked
        self.done = int((checked > UNKNOWN).sum())
        if self.decode.check == "auto" and self.seconds > PATIENCE and (checked == HEAD).any():
            self.check = "head"
        self._settle_side()
        if self.done and self._holds():
            # Whatever is known of images that are held, they have to be decoded.
            self._begin()
            return False
        return not len(self._unread()) and not len(self._unseen())

    def _settle_side(self) -> None:
        """The side as the images that are known have it; those whose pixels were looked at in another are to be looked
        at again."""
        sizes = np.unique(self.entries.square[self.entries.checked > UNKNOWN])
        if self.check != "none" and len(sizes):
            own = int(sizes[0]) if len(sizes) == 1 else 0
            self.side = self.decode.image_size or own or self.fallback
            self.uniform = own == self.side
        if self.side not in (None, self.entries.side):
            self.entries.cut_to(self.side)

    def _holds(self) -> bool:
        """Whether pixels are kept: they fit, and are whole (not cut or resized), or small."""
        side = self.side or 1
        fits = self.count * CHANNELS * side**2 <= MOST_ARRAY_BYTES
        return self.check == "full" and fits and (self.uniform or side <= SMALL)

    def _unread(self) -> Numbers:
        """Numbers of the images whose pixels are wanted and not known, in the order of the splits."""
        wanted = self.order if self.check == "full" else self._sample()
        return self._readable(wanted[self.entries.checked[wanted] < FULL])

    def _unseen(self) -> Numbers:
        """Numbers of the images whose heads are wanted and not known."""
        unseen = np.flatnonzero(self.entries.checked == UNKNOWN)
        return np.setdiff1d(self._readable(unseen), self._sample()) if self.check == "head" else unseen[:0]

    def _readable(self, numbers: Numbers) -> Numbers:
        return numbers[~np.isin(numbers, list(self.bad))] if self.bad else numbers

    def _sample(self) -> Numbers:
        """The training images that mean and standard deviation are taken of: which, their number alone decides."""
        train = self.planned["train"]
        if not self.statistics or len(train) <= SAMPLE:
            return train if self.statistics else train[:0]
        return np.sort(generator(0, "statistics", len(train)).choice(train, SAMPLE, replace=False))

    def read(self) -> Iterator[int]:
        """Look at every image as is asked; yields how many were."""
        while True:
            if len(unseen := self._unseen()):
                for number, head in self._spread(self._head, lambda: self._head, unseen, HEADS_AT_ONCE):
                    self._note_head(number, head)
                    yield self.done
                self._settle_side()
            if not len(unread := self._unread()):
                return
            with closing(self._spread(self._open, self._opener, unread, IMAGES_AT_ONCE)) as opened:
                for number, found in opened:
                    turned = self._take(number, found)
                    yield self.done
                    if turned:
                        break

    def _spread(
        self, here: Callable[[int], Seen], there: Callable[[], Callable[[int], Seen]], numbers: Numbers, at_once: int
    ) -> Generator[tuple[int, Seen]]:
        """What is seen of each of the images: the first here, until it is known how long the others take; those in
        processes, by the function that ``there`` gives, if that is worth it. It stops where a full check, which nobody
        asked for, would take too long."""
        started = perf_counter()
        for place, number in enumerate(numbers.tolist(), 1):
            yield number, here(number)
            spent = perf_counter() - started
            rest = spent / place * (len(numbers) - place)
            if spent > MEASURED and rest > ALONE:
                break
        numbers = numbers[place:]
        if not len(numbers):
            return
        if self.decode.check == "auto" and self.check == "full" and not self._holds():
            self.seconds = rest / self.workers
            if self.seconds > PATIENCE:
                self.check = "head"
                return
        shared = in_pieces(there(), numbers, at_once, self.workers) if self.workers > 1 else None
        yield from shared or ((number, here(number)) for number in numbers.tolist())

    def _head(self, number: int) -> Head | str:
        cells = self.given.cells
        return read_head(cells.text(number) if isinstance(cells, Paths) else cells[number])

    def _note_head(self, number: int, head: Head | str) -> None:
        self.done += 1
        if isinstance(head, str):
            self.bad[number] = head
        else:
            self.entries.square[number], self.entries.lossy[number] = head
            self.entries.checked[number] = HEAD

    def _opener(self) -> Callable[[int], Opened | str]:
        return partial(open_cell, self.given.cells, self._cut)

    @property
    def _cut(self) -> Cut:
        return Cut(own=self.side, fallback=self.fallback, pixels=self._holds())

    def _open(self, number: int) -> Opened | str:
        """The image, from its file where that was not retained."""
        content = self.retained.pop(number, None) or read_cell(self.given.cells[number])
        if isinstance(content, str):
            return content
        # It may have to be decoded again, at another side.
        if self.uniform and self.decode.image_size is None and len(content) <= self.room:
            self.retained[number] = content
            self.room -= len(content)
        return open_image(content, self._cut)

    def _take(self, number: int, found: Opened | str) -> bool:
        """Note what an image is like; whether it changes the side, so that those before are to be decoded again."""
        entries, turned = self.entries, False
        self.done += entries.checked[number] == UNKNOWN
        if not isinstance(found, str) and self.uniform and found.square != self.side:
            first = self.side is None
            self.uniform = first and found.square > 0
            self.side = found.square if self.uniform else self.fallback
            turned = self.side != entries.side and not first
            if self.side != entries.side:
                entries.cut_to(self.side)
            if found.side != self.side:
                found = self._open(number)
        if isinstance(found, str):
            self.bad[number] = found
            return turned
        entries.digest[number] = np.frombuffer(found.digest, np.uint8)
        entries.square[number], entries.lossy[number] = found.square, found.lossy
        entries.sums[number], entries.squares[number] = found.sums, found.squares
        entries.checked[number] = FULL
        self._hold(number, found)
        return turned

    def _hold(self, number: int, found: Opened) -> None:
        if not self._holds() or found.pixels is None:
            self.pixels = None
        else:
            if self.pixels is None:
                self.rows = np.argsort(self.order)
                self.pixels = np.empty((self.count, CHANNELS, found.side, found.side), np.uint8)
            self.pixels[self.rows[number]] = found.pixels.transpose(2, 0, 1)

    def keep(self) -> None:
        """Keep what is known of the files, but of images that are held, which every start has to decode."""
        if self.index and self.pixels is None:
            self.index.write(self.entries, self.seconds)

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

    def notes(self) -> list[str]:
        """What was not looked at, and what that means; and what should be said of the index."""
        said = [self.index.note] if self.index and self.index.note else []
        if self.check != "full":
            minutes = max(1, round(self.seconds / 60))
            cost = f"would take about {minutes:,} minute{'s' * (minutes > 1)} and " if self.seconds else ""
            what = "of each image only the head was checked" if self.check == "head" else "no image was opened"
            said.append(
                f"{what}, so the SHA-256 is of names and sizes, and a damaged image is met in training: --check full "
                f"{cost}decodes each once"
            )
            if self.statistics and len(self.planned["train"]) > SAMPLE:
                said.append(f"mean and standard deviation are of {SAMPLE:,} training images")
        return said

    def split(self, numbers: Numbers) -> Images:
        """The images of those numbers."""
        labels = torch.from_numpy(self.given.labels[numbers])
        names, store = Chosen(self.given.names, numbers), Chosen(self.given.cells, numbers)
        if self.check == "none":
            kinds = {name.lower().endswith((".jpg", ".jpeg")) for name in names}
        else:
            kinds = set(self.entries.lossy[numbers].tolist())
        encoding: Encoding = "mixed" if len(kinds) > 1 else "jpeg" if True in kinds else "lossless"
        if self.pixels is not None:
            rows = self.rows[numbers]
            # A view where it can be one: a copy would hold the set twice.
            images = self.pixels[rows] if self.bad or not len(rows) else self.pixels[rows[0] : rows[-1] + 1]
            return Split(images=torch.from_numpy(images), labels=labels, encoding=encoding, names=names, store=store)
        return EncodedSplit(
            store=store,
            labels=labels,
            side=self.side or self.fallback,
            moments=self._moments(numbers),
            identity=self._identity(numbers),
            encoding=encoding,
            workers=self.decode.workers,
            names=names,
            waiting=self.waiting,
            on_bad=self.decode.on_bad,
        )

    def _moments(self, numbers: Numbers) -> Moments:
        entries = self.entries
        every = Moments(pixels=entries.side**2, sums=entries.sums, squares=entries.squares)
        if self.check == "full":
            return every.only(numbers)
        sample = np.intersect1d(self._readable(self._sample()), numbers, assume_unique=True)
        return replace(every.only(sample), numbers=np.searchsorted(numbers, sample))

    def _identity(self, numbers: Numbers) -> str:
        """A SHA-256 of the files: of their own sums, or where not all were read of their names and sizes."""
        identity = hashlib.sha256()
        for some in np.array_split(numbers, len(numbers) // PIECE + 1):
            if self.check == "full":
                identity.update(self.given.spell(self.entries.digest[some].tobytes()))
            else:
                named = zip(Chosen(self.given.names, some), self._sizes(some), strict=True)
                identity.update("".join(f"{name}\0{size}\n" for name, size in named).encode())
        return identity.hexdigest()

    def _sizes(self, numbers: Numbers) -> list[int]:
        """Bytes of the files."""
        if self.given.known:
            return list(self.given.known[1].sizes[numbers].tolist())
        return [len(read_cell(self.given.cells[number])) for number in numbers.tolist()]

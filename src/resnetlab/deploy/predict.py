"""Predict files: listed, decoded ahead in processes, answered in batches, written in order. No torch is loaded here.

Batch k holds the files k · size … (k + 1) · size - 1 of the listing, however many threads, ranks or restarts there are,
so that each answer has the same bits. Of several ranks r computes the batches r, r + ranks, …
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from glob import glob
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from resnetlab.core.errors import ConfigError, DataError, listed, printable, require
from resnetlab.core.files import MANIFEST, digest, folder_exists, read_folder
from resnetlab.data.ahead import in_processes
from resnetlab.data.decode import Pixels, reason
from resnetlab.data.listing import Listing, walk
from resnetlab.deploy.bundle import BUNDLE
from resnetlab.deploy.engines import Predictor
from resnetlab.deploy.journal import Journal, merged, open_journal
from resnetlab.deploy.preprocessing import Prediction, Preprocessing, predictions
from resnetlab.deploy.rows import NO_ANSWER, Row, batched, check_format, plain, write_rows

MOST_WORKERS, PIECE = 8, 8
"""Files that a process decodes at a time: for small images one a file would cost more than the decoding."""


@dataclass(frozen=True)
class Item:
    """A path that should be an image; ``fault`` is why it cannot be one, such as a folder that may not be entered."""

    path: str
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Files, folders (with all below), patterns of the shell, and ``-`` for ``listed``, a file of one path a line.

    Each file that is named is an image for us, whatever its name; in folders junk is passed over, as where a set is
    read. The order is that of the sources, sorted within each folder, its files before its folders.
    """

    given: Sequence[str]
    listed: IO[bytes] | None = None
    junk: Counter[str] = field(default_factory=Counter)

    def check(self) -> None:
        """Raise ``DataError`` for a source that is nowhere, and where all together hold no image."""
        for source in self.given:
            if source != "-" and not self._paths(source):
                raise DataError(
                    f"{printable(source)} does not exist, and matches nothing as a pattern; give files, folders, "
                    "patterns such as 'photos/*.jpg', or - for a list of paths on standard input"
                )
        if next(iter(self), None) is None:
            raise DataError(f"no images in {listed(self.given)}")

    def __iter__(self) -> Iterator[Item]:
        self.junk.clear()
        for source in self.given:
            for path in self._paths(source):
                yield from self._items(path)

    def _paths(self, source: str) -> Sequence[str] | Iterator[str]:
        if source == "-" and self.listed is not None:
            self.listed.seek(0)
            return (os.fsdecode(path) for line in self.listed if (path := line.rstrip(b"\r\n")))
        if os.path.lexists(source):
            return [source]
        found = sorted(glob(source, recursive=True))  # noqa: PTH207  # a path as the shell has it
        # ** matches the files of a folder beside the folder itself.
        return [path for path in found if not Path(path).is_dir()] if "**" in source else found

    def _items(self, path: str) -> Iterator[Item]:
        if not Path(path).is_dir():
            yield Item(path)
            return
        listing = Listing(Path(path), junk=self.junk)
        for names, _ in walk(listing):
            yield from _bad(listing)
            yield from (Item(str(listing.folder / name)) for name in names)
        yield from _bad(listing)


def _bad(listing: Listing) -> Iterator[Item]:
    """What could not be entered since it was asked for last."""
    yield from (Item(str(listing.folder / name), why) for name, why in listing.bad)
    listing.bad.clear()


def default_workers() -> int:
    """A process for each core of this one, at most 8."""
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the rows, beside the network: ``top`` classes each, ``batch_size`` images at a time.

    ``workers`` processes decode ahead, and change no row; 0 leaves it to this one.
    """

    top: int = 5
    batch_size: int = 64
    workers: int = 1

    def __post_init__(self) -> None:
        for name, least in (("top", 1), ("batch_size", 1), ("workers", 0)):
            require(getattr(self, name) >= least, name, getattr(self, name), f"{least} or more")


def predict_batches(
    predictor: Predictor, batches: Iterable[list[Item]], settings: Settings
) -> Iterator[tuple[list[Row], "np.ndarray[Any, Any]"]]:
    """For each batch its rows, and the logits ``(n, K)`` of those of its files that could be read.

    Every batch but the last has ``settings.batch_size`` items. Few are held at a time: files are decoded only as far
    ahead as the processes are busy.
    """
    pieces = (batch[start : start + PIECE] for batch in batches for start in range(0, len(batch), PIECE))
    decode = partial(_decode, preprocessing=predictor.preprocessing)
    made = in_processes(decode, pieces, settings.workers)
    for batch in batched((each for piece in made for each in piece), settings.batch_size):
        pixels = [found for _, found in batch if not isinstance(found, str)]
        logits = predictor.logits(np.stack(pixels)) if pixels else np.empty((0, len(predictor.classes)), np.float32)
        answers = iter(predictions(logits, predictor.classes, settings.top))
        yield [_row(item, found, answers) for item, found in batch], logits


def _decode(items: list[Item], preprocessing: Preprocessing) -> list[tuple[Item, Pixels | str]]:
    return [(item, item.fault or _pixels(item.path, preprocessing)) for item in items]


def _pixels(path: str, preprocessing: Preprocessing) -> Pixels | str:
    """The pixels of a file, or why there are none."""
    try:
        return preprocessing.pixels(Path(path))
    except DataError as error:
        return reason(error.__cause__ or error)


def _row(item: Item, found: Pixels | str, answers: Iterator[Prediction]) -> Row:
    if isinstance(found, str):
        return Row(item.path, Prediction((), ()), found)
    answer = next(answers)
    return Row(item.path, answer, None if answer.classes else NO_ANSWER)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How many rows there are, how many without an answer, and how many were there from before."""

    rows: int
    bad: int
    resumed: int


@dataclass(frozen=True)
class Rank:
    """This process among ``size`` that torchrun started."""

    rank: int = 0
    size: int = 1

    @classmethod
    def of_environment(cls) -> "Rank":
        """As torchrun says it; alone without torchrun."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def predict_into(
    out: Path,
    predictor: Predictor,
    network: str,
    sources: Sources,
    settings: Settings,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Outcome | None:
    """Write a row for each file into ``out``, as its suffix says: .csv, .jsonl or .parquet. ``out`` appears at the end,
    whole; until then ``OUT.partial`` is the journal (``deploy.journal``), from which whoever calls again resumes.

    ``network`` is what identifies the network (``network_digest``). ``on_progress`` is told how many files are done,
    those from before not counted. Several ranks give the same file; only the leading one returns the outcome.

    Raises ``ConfigError`` where ``out`` is there, or was begun with other settings or files.
    """
    check_out(out)
    here = Rank.of_environment()
    asked = {
        "network": network,
        "engine": predictor.engine,
        "top": settings.top,
        "batch_size": settings.batch_size,
        "ranks": here.size,
    }
    parts = [_part(out, rank) for rank in range(here.size)]
    with open_journal(parts[here.rank], asked) as journal:
        share = _Share(sources, settings.batch_size, here)
        resumed = _resume(journal, share)
        done = 0
        for answered, _ in predict_batches(predictor, share, settings):
            journal.append([plain(row) for row in answered])
            done += len(answered) * here.size
            on_progress(done)
        journal.end([share.passed, share.names.hexdigest()])
    if here.rank:
        return None
    rows = (row for batch in merged(parts, [asked] * here.size) for row in batch)
    bad = write_rows(out, rows, min(settings.top, len(predictor.classes)))
    for path in parts:
        path.unlink()
    return Outcome(rows=share.passed, bad=bad, resumed=resumed)


class _Share:
    """The batches of this rank. ``passed`` counts all files that were listed so far, ``names`` is of their paths."""

    def __init__(self, sources: Iterable[Item], size: int, here: Rank) -> None:
        self.passed, self.names = 0, hashlib.sha256()
        self.batches = self._listed(batched(sources, size), here)

    def _listed(self, batches: Iterable[list[Item]], here: Rank) -> Iterator[list[Item]]:
        for number, batch in enumerate(batches):
            self.passed += len(batch)
            for item in batch:
                self.names.update(os.fsencode(item.path) + b"\0")
            if number % here.size == here.rank:
                yield batch

    def __iter__(self) -> Iterator[list[Item]]:
        return self.batches


def _resume(journal: Journal, share: _Share) -> int:
    """Pass over what the journal has already; how many files that are."""
    resumed = 0
    for rows in journal.batches():
        batch = next(iter(share), [])
        if [item.path for item in batch] != [row[0] for row in rows]:
            raise ConfigError(
                f"the files are not those with which {printable(journal.path)} was begun; put them back, or remove it "
                "to start again"
            )
        resumed += len(rows)
    return resumed


def check_out(out: Path) -> None:
    """Raise ``ConfigError`` for a file that is there, or whose suffix says no format that is written; and
    ``MissingExtraError`` without the library of that format."""
    check_format(out)
    if out.exists() and not _part(out, 0).exists():
        raise ConfigError(f"{printable(out)} exists; choose another name, or remove it")


def _part(out: Path, rank: int) -> Path:
    return out.with_name(f"{out.name}.partial{f'.{rank}' if rank else ''}")


def network_digest(folder: Path, checkpoint: Literal["best", "last"]) -> str:
    """What identifies the network in a bundle, or of a run's checkpoint: the SHA-256 over the sums of its files."""
    if (folder / BUNDLE).is_file():
        return digest((folder / BUNDLE).read_bytes())
    which = checkpoint if folder_exists(folder / checkpoint) else "last"
    version, _ = read_folder(folder / which, only=())
    return digest((version / MANIFEST).read_bytes())

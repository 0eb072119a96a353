"""The files of a folder that should be images. No torch is loaded here."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG

JUNK_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}
JUNK_SUFFIX = re.compile(
    r"txt|csv|tsv|jsonl?|xml|md|rst|py|ipynb|ya?ml|toml|ini|cfg|html?|css|js|pdf|docx?|xlsx?|log|db|sqlite|mat|npy|npz"
    r"|pkl|h5|parquet|zip|tar|t?gz|bz2|xz|7z|sh|bat|lnk|url|mp[34]|wav|avi|mov|sha256|md5",
    re.IGNORECASE,
)


@dataclass
class Listing:
    """What lies in a folder: ``bad`` has (name, reason) of what cannot be entered, ``junk`` counts what is no image."""

    folder: Path
    bad: list[tuple[str, str]] = field(default_factory=list)
    junk: Counter[str] = field(default_factory=Counter)


def walk(listing: Listing, place: str = "", around: Iterable[Path] = ()) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of the files in the folder ``place`` and below: those of a folder sorted, before those of its
    folders.

    Links are followed, each real folder once, and those ``around`` not at all. Hidden files, and those whose name says
    that they are no images, are counted as junk.
    """
    entered = {_identity(folder) for folder in around}
    waiting = [place]
    while waiting:
        place = waiting.pop()
        identity = _identity(listing.folder / place)
        if identity in entered:
            continue
        entered.add(identity)
        inner = []
        for name, status in entries(listing, place):
            if S_ISDIR(status.st_mode):
                inner.append(name)
            else:
                yield name, status
        waiting += reversed(inner)


def entries(listing: Listing, place: str) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of each file that should be an image, and of each folder, in the folder ``place``, sorted. What
    is neither is listed as bad, and junk is counted."""
    try:
        with os.scandir(listing.folder / place) as found:
            inside = sorted(found, key=lambda entry: entry.name, reverse=True)
    except (OSError, ValueError) as error:
        listing.bad.append((place or ".", getattr(error, "strerror", None) or str(error)))
        return
    while inside:
        # An entry keeps its status: it goes at once, so that a million of them never stand beside each other.
        entry = inside.pop()
        own = entry.name
        name = f"{place}/{own}" if place else own
        if own[0] == "." or own.lower() in JUNK_NAMES:
            listing.junk["hidden" if own[0] == "." else own] += 1
            continue
        try:
            status = entry.stat()
        except OSError as error:
            listing.bad.append((name, error.strerror or str(error)))
            continue
        if S_ISREG(status.st_mode):
            _, dot, suffix = own.rpartition(".")
            if dot and _is_junk(suffix):
                listing.junk[f".{suffix.lower()}"] += 1
                continue
        elif not S_ISDIR(status.st_mode):
            listing.bad.append((name, "it is no file but a pipe, a socket or a device"))
            continue
        yield name, status


@lru_cache(1024)
def _is_junk(suffix: str) -> bool:
    return JUNK_SUFFIX.fullmatch(suffix) is not None


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

"""The files of a folder that should be images. No torch is loaded here."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Literal

JUNK_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}
JUNK_SUFFIX = re.compile(
    r"\.(txt|csv|tsv|jsonl?|xml|md|rst|py|ipynb|ya?ml|toml|ini|cfg|html?|css|js|pdf|docx?|xlsx?|log|db|sqlite|mat|npy|npz"
    r"|pkl|h5|parquet|zip|tar|t?gz|bz2|xz|7z|sh|bat|lnk|url|mp[34]|wav|avi|mov|sha256|md5)",
    re.IGNORECASE,
)


@dataclass
class Listing:
    """What lies in a folder: ``bad`` has (name, reason) of what cannot be entered, ``junk`` counts what is no image."""

    folder: Path
    bad: list[tuple[str, str]] = field(default_factory=list)
    junk: Counter[str] = field(default_factory=Counter)


def walk(listing: Listing, place: str = "", around: Iterable[Path] = ()) -> Iterator[str]:
    """Names of the files in the folder ``place`` and below: those of a folder sorted, before those of its folders.

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
        for name, kind in entries(listing, place):
            if kind == "file":
                yield name
            else:
                inner.append(name)
        waiting += reversed(inner)


def entries(listing: Listing, place: str) -> Iterator[tuple[str, Literal["file", "folder"]]]:
    """Name and kind of each file that should be an image, and of each folder, in the folder ``place``, sorted."""
    try:
        with os.scandir(listing.folder / place) as found:
            inside = sorted(found, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        listing.bad.append((place or ".", getattr(error, "strerror", None) or str(error)))
        return
    for entry in inside:
        name = f"{place}/{entry.name}" if place else entry.name
        if kind := _kind(listing, entry, name):
            yield name, kind


def _kind(listing: Listing, entry: os.DirEntry[str], name: str) -> Literal["file", "folder", ""]:
    """Whether the entry is a file that should be an image, or a folder. What is neither is listed as bad, and junk is
    counted."""
    if entry.name.startswith(".") or entry.name.lower() in JUNK_NAMES:
        listing.junk["hidden" if entry.name.startswith(".") else entry.name] += 1
        return ""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        listing.bad.append((name, error.strerror or str(error)))
        return ""
    if S_ISDIR(mode):
        return "folder"
    if not S_ISREG(mode):
        listing.bad.append((name, "it is no file but a pipe, a socket or a device"))
        return ""
    suffix = Path(entry.name).suffix
    if JUNK_SUFFIX.fullmatch(suffix):
        listing.junk[suffix.lower()] += 1
        return ""
    return "file"


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

"""The files of a folder that should be images. No torch is loaded here."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from resnetlab.data.stamps import Stamps

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


def walk(listing: Listing, place: str = "", around: Iterable[Path] = ()) -> Iterator[tuple[list[str], Stamps]]:
    """Names and stamps of the files in the folder ``place`` and below, folder by folder: those of a folder sorted,
    before those of its folders.

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
        names: list[str] = []
        stamps = Stamps()
        waiting += reversed(list_place(listing, place, names, stamps))
        if names:
            yield names, stamps


def list_place(listing: Listing, place: str, names: list[str], stamps: Stamps) -> list[str]:
    """Add each file that should be an image in the folder ``place``, sorted; the folders in it, sorted. What is neither
    is listed as bad, and junk is counted."""
    folders: list[str] = []
    try:
        with os.scandir(listing.folder / place) as found:
            inside = sorted(found, key=attrgetter("name"), reverse=True)
    except (OSError, ValueError) as error:
        listing.bad.append((place or ".", getattr(error, "strerror", None) or str(error)))
        return folders
    prefix, add = f"{place}/" if place else "", stamps.add
    while inside:
        # An entry keeps its status: it goes at once, so that a million of them never stand beside each other.
        entry = inside.pop()
        own = entry.name
        stem, _, suffix = own.rpartition(".")
        odd = not stem or own[0] == "." or _is_junk(suffix)
        if odd and (own[0] == "." or own.lower() in JUNK_NAMES):
            listing.junk["hidden" if own[0] == "." else own] += 1
            continue
        try:
            status = entry.stat()
        except OSError as error:
            listing.bad.append((prefix + own, error.strerror or str(error)))
            continue
        if S_ISREG(status.st_mode):
            if odd and stem:
                listing.junk[f".{suffix.lower()}"] += 1
            else:
                names.append(prefix + own)
                add(status)
        elif S_ISDIR(status.st_mode):
            folders.append(prefix + own)
        else:
            listing.bad.append((prefix + own, "it is no file but a pipe, a socket or a device"))
    return folders


@lru_cache(1024)
def _is_junk(suffix: str) -> bool:
    return JUNK_SUFFIX.fullmatch(suffix) is not None


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino

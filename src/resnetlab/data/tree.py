"""The files of a folder of images, with class and part, before any of them is opened."""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Literal

from resnetlab.core.errors import DataError, printable

TEST_NAMES = ("val", "valid", "test")
JUNK_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}
JUNK_SUFFIX = re.compile(
    r"\.(txt|csv|tsv|jsonl?|xml|md|rst|py|ipynb|ya?ml|toml|ini|cfg|html?|css|js|pdf|docx?|xlsx?|log|db|sqlite|mat|npy|npz"
    r"|pkl|h5|parquet|zip|tar|t?gz|bz2|xz|7z|sh|bat|lnk|url|mp[34]|wav|avi|mov|sha256|md5)",
    re.IGNORECASE,
)

Part = Literal["train", "test", ""]


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that should be an image: its name within the folder, its class, and its part where the folder says."""

    name: str
    label: int
    part: Part = ""


@dataclass
class Tree:
    """What lies in a folder: ``bad`` has (name, reason) of what cannot be entered, ``junk`` counts what is no image.

    ``classes`` are names of folders as they are; ``shown`` makes them fit for a message. Without a part in the files,
    the folder does not say which are for testing.
    """

    folder: Path
    classes: tuple[str, ...] = ()
    files: list[File] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    junk: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def has_parts(self) -> bool:
        return any(file.part for file in self.files)


def list_folder(folder: Path) -> Tree:
    """The files of ``folder``: ``train/`` and ``val/`` (or ``valid/``, ``test/``) with a folder for each class, or just
    folders of classes. A class is named by its folder; its images may lie deeper in it.

    Hidden files, and those whose name says that they are no images, are counted as junk. Links are followed, each
    real folder once for each class. Nothing is opened.

    Raises ``DataError`` where there is no such layout.
    """
    tree = Tree(folder)
    top = _class_folders(tree, "")
    if tree.bad:
        raise DataError(
            f"{printable(folder)} cannot be read as a folder: {tree.bad[0][1]}; "
            "give the one that holds a folder for each class"
        )
    if "train" in top and any(name in top for name in TEST_NAMES):
        _list_parts(tree, top)
    elif top == ["train"]:
        raise DataError(
            f"{printable(folder)} has train/ but neither val/, valid/ nor test/; "
            f"give {printable(folder / 'train')} to have it split"
        )
    else:
        tree.classes = tuple(top)
        _list_classes(tree, "", top, "")
    return tree


def _list_parts(tree: Tree, top: list[str]) -> None:
    test, *others = [name for name in TEST_NAMES if name in top]
    others += [name for name in top if name not in ("train", *TEST_NAMES)]
    if others:
        tree.notes.append(f"read train/ and {test}/ alone; left aside: {', '.join(printable(name) for name in others)}")
    names = {"train": _class_folders(tree, "train"), test: _class_folders(tree, test)}
    for part, found in names.items():
        if not found:
            raise DataError(f"{printable(tree.folder / part)} holds no folder of a class, such as {part}/cat/")
    tree.classes = tuple(names["train"])
    _list_classes(tree, "train", names["train"], "train")
    unknown = [name for name in names[test] if name not in tree.classes and any(_walk(tree, f"{test}/{name}"))]
    if unknown:
        raise DataError(
            f"{printable(tree.folder / test)} has classes that train/ has not: {some(unknown)}; "
            "a network can only learn those of train/, so add them there or remove them"
        )
    _list_classes(tree, test, [name for name in names[test] if name in tree.classes], "test")


def _list_classes(tree: Tree, prefix: str, names: list[str], part: Part) -> None:
    """Add the files of the classes ``names``, which lie in ``prefix``, sorted by class and name."""
    labels = {name: label for label, name in enumerate(tree.classes)}
    for name in sorted(names):
        place = f"{prefix}/{name}" if prefix else name
        tree.files += [File(name=found, label=labels[name], part=part) for found in sorted(_walk(tree, place))]


def _class_folders(tree: Tree, place: str) -> list[str]:
    """Names of the folders in ``place``, sorted; files beside them belong to no class and are junk."""
    names = []
    for entry in _entries(tree, place):
        kind = _kind(tree, entry, f"{place}/{entry.name}" if place else entry.name)
        if kind == "folder":
            names.append(entry.name)
        elif kind == "file":
            tree.junk["outside of a class"] += 1
    return names


def _walk(tree: Tree, place: str) -> Iterator[str]:
    """Names of the files in the folder ``place`` and below."""
    # A link to a folder around this one would bring the other classes' images into this class.
    entered = {_identity(tree.folder), _identity((tree.folder / place).parent)}
    waiting = [place]
    while waiting:
        place = waiting.pop()
        identity = _identity(tree.folder / place)
        if identity in entered:
            continue
        entered.add(identity)
        for entry in _entries(tree, place):
            inner = f"{place}/{entry.name}"
            kind = _kind(tree, entry, inner)
            if kind == "file":
                yield inner
            elif kind == "folder":
                waiting.append(inner)


def _kind(tree: Tree, entry: os.DirEntry[str], name: str) -> Literal["file", "folder", ""]:
    """Whether the entry is a file that should be an image, or a folder. What is neither is listed as bad, and junk is
    counted."""
    if entry.name.startswith(".") or entry.name.lower() in JUNK_NAMES:
        tree.junk["hidden" if entry.name.startswith(".") else entry.name] += 1
        return ""
    try:
        mode = entry.stat().st_mode
    except OSError as error:
        tree.bad.append((name, error.strerror or str(error)))
        return ""
    if S_ISDIR(mode):
        return "folder"
    if not S_ISREG(mode):
        tree.bad.append((name, "it is no file but a pipe, a socket or a device"))
        return ""
    suffix = Path(entry.name).suffix
    if JUNK_SUFFIX.fullmatch(suffix):
        tree.junk[suffix.lower()] += 1
        return ""
    return "file"


def _entries(tree: Tree, place: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(tree.folder / place) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        tree.bad.append((place or ".", getattr(error, "strerror", None) or str(error)))
        return []


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def some(names: list[str], most: int = 20) -> str:
    """The first of ``names`` for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name) for name in names[:most]) + more

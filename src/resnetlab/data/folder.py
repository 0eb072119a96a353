"""Folders of images: one folder for each class, with or without parts for training, validation and testing."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Literal

import numpy as np

from resnetlab.core.errors import DataError, printable
from resnetlab.data.dataset import Numbers, SplitName, split_by_class
from resnetlab.data.ingest import EncodedSet, some

PARTS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
"""Names of the folder of each split; of several the first is read."""
JUNK_NAMES = {"thumbs.db", "desktop.ini", "__macosx"}
JUNK_SUFFIX = re.compile(
    r"\.(txt|csv|tsv|jsonl?|xml|md|rst|py|ipynb|ya?ml|toml|ini|cfg|html?|css|js|pdf|docx?|xlsx?|log|db|sqlite|mat|npy|npz"
    r"|pkl|h5|parquet|zip|tar|t?gz|bz2|xz|7z|sh|bat|lnk|url|mp[34]|wav|avi|mov|sha256|md5)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that should be an image: its name within the folder, its class, and its split where the folder says."""

    name: str
    label: int
    split: SplitName | None = None


@dataclass
class Tree:
    """What lies in a folder: ``bad`` has (name, reason) of what cannot be entered, ``junk`` counts what is no image.

    ``classes`` are names of folders as they are; ``shown`` makes them fit for a message. ``parts`` are the folders of
    the splits, none where the folder does not say which files are for testing.
    """

    folder: Path
    classes: tuple[str, ...] = ()
    parts: dict[SplitName, str] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    junk: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Paths(Sequence[Path]):
    """Files of one folder; a million names take less memory than a million paths."""

    folder: Path
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Path:  # type: ignore[override]  # no slices
        return self.folder / self.names[number]


def read_folder(folder: Path, split_seed: int) -> EncodedSet:
    """The files of ``folder`` (see ``list_folder`` for its layout), none of them opened.

    Without folders of the splits, a fifth of each class of the images that can be read becomes the test;
    ``split_seed`` decides which.

    Raises ``DataError`` where there is no such layout, and where a class or a split has too few images.
    """
    tree = list_folder(folder)
    labels = np.array([file.label for file in tree.files], dtype=np.int64)
    splits = np.array([file.split or "" for file in tree.files])

    def divide(numbers: Numbers) -> dict[SplitName, Numbers]:
        if tree.parts:
            chosen = {name: numbers[splits[numbers] == name] for name in tree.parts}
        else:
            train, test = split_by_class(labels[numbers], split_seed)
            chosen = {"train": numbers[train], "test": numbers[test]}
        check_splits(tree, labels, numbers, chosen)
        return chosen

    notes = list(tree.notes)
    if tree.junk:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(tree.junk.items()))
        notes.append(f"passed over {tree.junk.total()} entries that are no images: {kinds}")
    names = tuple(file.name for file in tree.files)
    return EncodedSet(
        source=f"folder:{printable(folder)}",
        classes=tuple(printable(name) for name in tree.classes),
        cells=Paths(folder=folder, names=names),
        labels=labels,
        # Most names are the same objects: a million are not held twice.
        names=tuple(name if name.isprintable() else printable(name) for name in names),
        divide=divide,
        digest=lambda content: hashlib.sha256(content).hexdigest().encode(),
        bad=[(printable(name), why) for name, why in tree.bad],
        notes=tuple(notes),
    )


def check_splits(tree: Tree, labels: Numbers, numbers: Numbers, chosen: dict[SplitName, Numbers]) -> None:
    """Raise ``DataError`` where the images of those numbers are too few to learn from."""
    where = printable(tree.folder)
    if len(tree.classes) < 2:
        names = f"only one, {some(tree.classes)}" if tree.classes else "none"
        raise DataError(f"{where} should hold a folder for each class, two or more; it has {names}")
    counts = np.bincount(labels[chosen["train"]], minlength=len(tree.classes))
    if empty := [name for name, count in zip(tree.classes, counts, strict=True) if not count]:
        raise DataError(f"{where} has classes without images to train on: {some(empty)}; fill or remove their folders")
    for name, part in tree.parts.items():
        if not len(chosen[name]):
            raise DataError(f"{where} has no images in {part}/; fill it, or remove it")
    counts = np.bincount(labels[numbers], minlength=len(tree.classes))
    if not tree.parts and (few := [name for name, count in zip(tree.classes, counts, strict=True) if count < 2]):
        raise DataError(
            f"{where} has no folder for testing, and classes of a single image, which cannot be split: {some(few)}; "
            "add images, or make train/ and test/"
        )


def list_folder(folder: Path) -> Tree:
    """The files of ``folder``: ``train/`` and ``val/`` (or ``valid/``), ``test/`` or both with a folder for each class,
    or just folders of classes. A class is named by its folder; its images may lie deeper in it.

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
    parts = {split: place for split, places in PARTS.items() for place in reversed(places) if place in top}
    if "train" in parts and len(parts) > 1:
        tree.parts = parts
        _list_parts(tree, [name for name in top if name not in parts.values()])
    elif top == ["train"]:
        raise DataError(
            f"{printable(folder)} has train/ but neither val/, valid/ nor test/; "
            f"give {printable(folder / 'train')} to have it split"
        )
    else:
        tree.classes = tuple(top)
        _list_classes(tree, "", top, None)
    return tree


def _list_parts(tree: Tree, others: list[str]) -> None:
    if others:
        read = ", ".join(f"{place}/" for place in tree.parts.values())
        tree.notes.append(f"the splits are {read}; not read: {some(others)}")
    names = {split: _class_folders(tree, place) for split, place in tree.parts.items()}
    tree.classes = tuple(names["train"])
    for split, place in tree.parts.items():
        if not names[split]:
            raise DataError(f"{printable(tree.folder / place)} holds no folder of a class, such as {place}/cat/")
        unknown = [name for name in names[split] if name not in tree.classes and any(_walk(tree, f"{place}/{name}"))]
        if unknown:
            raise DataError(
                f"{printable(tree.folder / place)} has classes that train/ has not: {some(unknown)}; "
                "a network can only learn those of train/, so add them there or remove them"
            )
        _list_classes(tree, place, [name for name in names[split] if name in tree.classes], split)


def _list_classes(tree: Tree, prefix: str, names: list[str], split: SplitName | None) -> None:
    """Add the files of the classes ``names``, which lie in ``prefix``, sorted by class and name."""
    labels = {name: label for label, name in enumerate(tree.classes)}
    for name in sorted(names):
        place = f"{prefix}/{name}" if prefix else name
        tree.files += [File(name=found, label=labels[name], split=split) for found in sorted(_walk(tree, place))]


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

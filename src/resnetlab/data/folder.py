"""Folders of images: one folder for each class, with or without parts for training, validation and testing."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from resnetlab.core.errors import ConfigError, DataError, listed, printable
from resnetlab.data.classes import some
from resnetlab.data.dataset import Numbers, SplitName, split_by_class
from resnetlab.data.listing import Listing, list_place, walk
from resnetlab.data.opening import EncodedSet
from resnetlab.data.splits import WORDS, Choice, parse_choice, read_name, suggestion
from resnetlab.data.stamps import Paths, Stamps

LAYOUTS = (
    "read are: train/ with validation/, test/ or both, each with a folder for each class; or a folder for each class "
    "and nothing else"
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A file that should be an image: its name within the folder, its class, and its split where the folder says."""

    name: str
    label: int
    split: SplitName | None = None


@dataclass
class Tree(Listing):
    """What lies in a folder of classes.

    ``classes`` are names of folders as they are. ``parts`` are the folders of the splits, none where the folder does
    not say which files are for testing. ``names`` and ``stamps`` are of the files, of which ``groups`` says how many
    after one another are of which class and split.
    """

    classes: tuple[str, ...] = ()
    parts: dict[SplitName, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    stamps: Stamps = field(default_factory=Stamps)
    groups: list[tuple[int, int, SplitName | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> Iterator[File]:
        """The files one by one."""
        names = iter(self.names)
        for count, label, split in self.groups:
            yield from (File(name=name, label=label, split=split) for name in islice(names, count))


def read_folder(place: str, split_seed: int) -> EncodedSet:
    """The files of a folder (see ``list_folder`` for its layout), none of them opened.

    ``DIR[train=a,test=b]`` says which folders are which split; ``DIR[train=.]`` that all are classes. Without folders
    of the splits, a fifth of each class of the images that can be read becomes the test; ``split_seed`` decides which.

    Raises ``DataError`` where there is no such layout, and where a class or a split has too few images.
    """
    where, choice = (place, None) if Path(place).exists() else parse_choice(place)
    folder = Path(where)
    tree = list_folder(folder, choice)
    counts = [count for count, _, _ in tree.groups]
    labels = np.repeat(np.array([label for _, label, _ in tree.groups], np.int64), counts)
    places = list(tree.parts)
    parts = np.repeat(np.array([places.index(split) if split else 0 for *_, split in tree.groups], np.int8), counts)

    def divide(numbers: Numbers) -> dict[SplitName, Numbers]:
        if len(places) > 1:
            chosen = {name: numbers[parts[numbers] == place] for place, name in enumerate(places)}
        else:  # no parts, or one that the user chose
            train, test = split_by_class(labels[numbers], split_seed)
            chosen = {"train": numbers[train], "test": numbers[test]}
        return chosen

    notes = list(tree.notes)
    if tree.junk:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(tree.junk.items()))
        notes.append(f"passed over {tree.junk.total()} entries that are no images: {kinds}")
    printed = all(map(str.isprintable, tree.names))
    return EncodedSet(
        source=f"folder:{printable(place)}",
        classes=tuple(printable(name) for name in tree.classes),
        cells=Paths(folder=folder, names=tree.names),
        labels=labels,
        # A million names are not held twice.
        names=tree.names if printed else [printable(name) for name in tree.names],
        divide=divide,
        judge=lambda chosen: judge_splits(tree, labels, chosen),
        folders=True,
        spell=lambda digests: digests.hex().encode(),
        known=(index_key(place), tree.stamps),
        bad=[(printable(name), why) for name, why in tree.bad],
        notes=tuple(notes),
    )


def index_key(place: str) -> str:
    """What the index of a folder is kept under: its real path, and what the brackets behind it choose."""
    where = place if Path(place).exists() else parse_choice(place)[0]
    return f"{os.path.realpath(where)}{place.removeprefix(where)}"


def judge_splits(tree: Tree, labels: Numbers, chosen: Mapping[SplitName, Numbers]) -> list[str]:
    """Why a network cannot learn from the images of those numbers, if there are reasons."""
    where = printable(tree.folder)
    if len(tree.classes) < 2:
        names = f"only one, {some(tree.classes)}" if tree.classes else "none"
        inner = tree.folder / tree.classes[0] if tree.classes and not tree.parts else None
        deeper = inner is not None and len(_class_folders(Tree(inner), "")) > 1
        hint = f"; if that is the set, give {printable(inner)}" if deeper else ""
        return [f"{where} should hold a folder for each class, two or more; it has {names}{hint}"]
    reasons = []
    for split, places in tree.parts.items():
        if not len(chosen.get(split, ())):
            reasons.append(f"{where} has no images in {printable(places[0])}/; fill it, or remove it")
    counts = np.bincount(labels[np.concatenate(list(chosen.values()))], minlength=len(tree.classes))
    if len(tree.parts) < 2 and (few := [name for name, count in zip(tree.classes, counts, strict=True) if count == 1]):
        reasons.append(
            f"{where} has no folder for testing, and classes of a single image, which cannot be split: {some(few)}; "
            "add images, or make train/ and test/"
        )
    return reasons


def list_folder(folder: Path, choice: Choice | None = None) -> Tree:
    """The files of ``folder``: parts for the splits, each with a folder for each class, or just folders of classes. A
    class is named by its folder; its images may lie deeper in it. ``choice`` names the parts; without it their names
    do (``splits.read_name``).

    Hidden files, and those whose name says that they are no images, are counted as junk. Links are followed, each
    real folder once for each class. Nothing is opened.

    Raises ``DataError`` where there is no such layout, or what looks like a part of the set is none.
    """
    tree = Tree(folder)
    top = _class_folders(tree, "")
    if tree.bad:
        raise DataError(
            f"{printable(folder)} cannot be read as a folder: {tree.bad[0][1]}; "
            "give the one that holds a folder for each class"
        )
    tree.parts = find_parts(tree, top) if choice is None else _chosen_parts(tree, choice)
    if tree.parts == {"train": ["."]}:
        tree.parts = {}
    if tree.parts:
        _list_parts(tree, top)
    else:
        tree.classes = tuple(top)
        _list_classes(tree, "", top, None)
        _note_alike(tree, top)
    return tree


def find_parts(tree: Tree, top: list[str]) -> dict[SplitName, list[str]]:
    """Which of the folders ``top`` are splits by their names; none where all are classes.

    ``train`` says it alone. ``pets_train`` says it beside ``pets_test``, but beside ``cat`` it is a class, as
    ``test_tube`` is.

    Raises ``DataError`` for a name that could be either.
    """
    readings = {name: read_name(name) for name in top}
    exact = [name for name in top if readings[name].exact]
    if not exact:
        rests: dict[tuple[str, ...], set[SplitName]] = {}
        for reading in readings.values():
            if reading.split:
                rests.setdefault(reading.rest, set()).add(reading.split)
        whole = [rest for rest, splits in rests.items() if "train" in splits and len(splits) > 1]
        exact = [name for name in top if readings[name].split and readings[name].rest in whole]
    parts: dict[SplitName, list[str]] = {}
    for split in WORDS:
        if meant := [name for name in exact if readings[name].split == split]:
            parts[split] = meant
    others = [name for name in top if exact and name not in exact and any(_walk(Tree(tree.folder), name))]
    alike = [name for name in top if readings[name].split or readings[name].unplaced]
    where = printable(tree.folder)
    if list(parts) == ["train"] and len(exact) == 1 and not others:
        raise DataError(
            f"{where} has {printable(exact[0])}/ but neither validation/ nor test/; "
            f"give {printable(tree.folder / exact[0])} to have it split"
        )
    trouble = ""
    if exact and others and all(readings[name].split or readings[name].unplaced for name in others):
        trouble = f"which split is {listed(others)}, beside {listed(exact)}?"
    elif exact and others:
        part = "looks like a part" if len(exact) == 1 else "look like parts"
        trouble = f"{listed(exact)} {part} of the set, {listed(others)} like a class"
    elif several := [names for names in parts.values() if len(names) > 1]:
        trouble = f"{listed(several[0])} are several folders for one split"
    elif exact and "train" not in parts:
        trouble = f"{listed(exact)}, and no folder to train on"
    elif not exact and len(top) > 1 and alike == top and _shared(tree, top):
        trouble = f"{listed(top)} look like parts of the set, and hold the same folders"
    elif not exact and len(top) > 1 and len({readings[name].split for name in top} - {None}) > 1 and alike == top:
        trouble = f"{listed(top)} look like parts of the set, and differ in more than the split"
    if trouble:
        raise DataError(
            f"{where}: {trouble}; {LAYOUTS}. Say which folders are which: {suggestion(f'folder:{where}', parts)}, or "
            f"folder:{where}[train=.] if each is a class"
        )
    return parts


def _chosen_parts(tree: Tree, choice: Choice) -> dict[SplitName, list[str]]:
    patterns = [pattern for some in choice.patterns.values() for pattern in some]
    if "." in patterns and patterns != ["."]:
        raise ConfigError(f"{printable(tree.folder)}: . is the folder itself, all of it; write [train=.] alone")
    deepest = max(pattern.strip("/").count("/") for pattern in patterns)
    places = ["."] if patterns == ["."] else [f"{place}" for place in _folders(tree, "", deepest)]
    return choice.place({place: [place, f"{place}/"] for place in places}, f"folder:{printable(tree.folder)}")


def _folders(tree: Tree, place: str, deeper: int) -> Iterator[str]:
    """The folders in ``place``, and so many levels deeper, by their path."""
    for name in _class_folders(Tree(tree.folder), place):
        inner = f"{place}/{name}" if place else name
        yield inner
        if deeper:
            yield from _folders(tree, inner, deeper - 1)


def _shared(tree: Tree, top: list[str]) -> list[str]:
    """Names of the folders that each of the folders ``top`` holds."""
    shared: set[str] = set()
    for number, name in enumerate(top):
        inner = _class_folders(Tree(tree.folder), name)
        shared = shared.intersection(inner) if number else set(inner)
        # Mostly after the first: a set of many images is not scanned twice.
        if not shared:
            break
    return sorted(shared)


def _note_alike(tree: Tree, top: list[str]) -> None:
    if len(top) > 1 and len(shared := _shared(tree, top)) > 1:
        tree.notes.append(
            f"the classes are {listed(top)}; each holds the folders {listed(shared)}. If those are the classes, say "
            f"which folders are for training: folder:{printable(tree.folder)}[train=…,test=…]"
        )


def _list_parts(tree: Tree, top: list[str]) -> None:
    used = {place.split("/")[0] for places in tree.parts.values() for place in places}
    if others := [name for name in top if name not in used]:
        read = ", ".join(f"{place}/" for places in tree.parts.values() for place in places)
        tree.notes.append(f"the splits are {printable(read)}; not read: {some(others)}")
    names = {place: _class_folders(tree, place) for places in tree.parts.values() for place in places}
    tree.classes = tuple(sorted({name for place in tree.parts["train"] for name in names[place]}))
    for split, places in tree.parts.items():
        for place in places:
            where = printable(tree.folder / place)
            if not names[place]:
                raise DataError(
                    f"{where} holds no folder of a class, such as {printable(place)}/cat/{_without(tree, split)}"
                )
            unknown = [
                name for name in names[place] if name not in tree.classes and any(_walk(tree, f"{place}/{name}"))
            ]
            if unknown:
                first = printable(tree.parts["train"][0])
                raise DataError(
                    f"{where} has classes without images to train on: {some(unknown)}; a network can only learn those "
                    f"of {first}/, so add them there or remove them{_without(tree, split)}"
                )
            _list_classes(tree, place, [name for name in names[place] if name in tree.classes], split)


def _without(tree: Tree, split: SplitName) -> str:
    """How to leave out a part, such as a test whose labels are kept secret."""
    left = {name: places for name, places in tree.parts.items() if name != split}
    if split == "train":
        return ""
    return f"; to leave it out: {suggestion(f'folder:{printable(tree.folder)}', left, whole=True)}"


def _list_classes(tree: Tree, prefix: str, names: list[str], split: SplitName | None) -> None:
    """Add the files of the classes ``names``, which lie in ``prefix``, sorted by class and name."""
    labels = {name: label for label, name in enumerate(tree.classes)}
    for name in sorted(names):
        place = f"{prefix}/{name}" if prefix else name
        some: list[str] = []
        stamps, folders = Stamps(), 0
        for found, theirs in _walk(tree, place):
            some += found
            stamps.extend(theirs)
            folders += 1
        # The names of one folder are sorted already, but not beside those of folders in it.
        order = sorted(range(len(some)), key=some.__getitem__) if folders > 1 else None
        tree.names += some if order is None else [some[number] for number in order]
        tree.stamps.extend(stamps, order)
        tree.groups.append((len(some), labels[name], split))


def _class_folders(tree: Tree, place: str) -> list[str]:
    """Names of the folders in ``place``, sorted; files beside them belong to no class and are junk."""
    files: list[str] = []
    folders = list_place(tree, place, files, Stamps())
    if files:
        tree.junk["outside of a class"] += len(files)
    return [Path(name).name for name in folders]


def _walk(tree: Tree, place: str) -> Iterator[tuple[list[str], Stamps]]:
    """Names and stamps of the files in the folder ``place`` and below."""
    # A link to a folder around this one would bring the other classes' images into this class.
    return walk(tree, place, (tree.folder, (tree.folder / place).parent))

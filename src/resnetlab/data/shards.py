"""Shards: tar files as WebDataset has them, ``KEY.jpg`` beside ``KEY.cls``. Images are read by their place in the file.

So any image is one read away, in whatever order: a function of (seed, epoch), as for every other set.
"""

import glob
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from resnetlab.core.errors import DataError, do_all, first_line, listed, printable
from resnetlab.data.classes import MISSING, NAMES, Refuse, raise_it, read_names
from resnetlab.data.dataset import Numbers, SplitName
from resnetlab.data.opening import EncodedSet
from resnetlab.data.splits import parse_choice, place_names, without_shard
from resnetlab.data.tables import labelled_set, number_labels

SUFFIX, LABEL = ".tar", "cls"
IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm")
LONGEST_LABEL = 1000
MOST_NAMES = 1_000_000
"""Files that braces may stand for."""
Label = int | str | None


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The images of a tar file: their names, where each begins and how many bytes it has, and their labels; ``others``
    counts files that are neither image nor label, by their endings."""

    path: Path
    names: list[str]
    starts: Numbers
    sizes: Numbers
    labels: list[Label]
    others: Counter[str]


class Members(Sequence[bytes]):
    """The images of several shards, one after the other, each read from its file when it is asked for."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.paths = [shard.path for shard in shards]
        self.ends = np.cumsum([len(shard.names) for shard in shards])
        self.starts = np.concatenate([shard.starts for shard in shards])
        self.sizes = np.concatenate([shard.sizes for shard in shards])

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> bytes:  # type: ignore[override]  # no slices
        path = self.paths[int(np.searchsorted(self.ends, number, side="right"))]
        # Opened for each image: as many files as a large set has may not be open at a time, in every process.
        with open(path, "rb", buffering=0) as file:
            return os.pread(file.fileno(), int(self.sizes[number]), int(self.starts[number]))


class MemberNames(Sequence[str]):
    """What each image is called: its name in its shard."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards, self.ends = shards, np.cumsum([len(shard.names) for shard in shards])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        place = int(np.searchsorted(self.ends, number, side="right"))
        shard = self.shards[place]
        name = shard.names[number - int(self.ends[place])]
        return f"{printable(name)} ({printable(shard.path.name)})"


def read_shards(place: str, split_seed: int, refuse: Refuse = raise_it) -> EncodedSet:
    """The images of tar files, none of them opened: of a folder, or those that a pattern names, with ``*``, ``?`` and
    WebDataset's braces (``train-{0000..0009}.tar``).

    The name of a file says its split, as for Parquet; ``PATTERN[train=a*,test=b*]`` says it else. A label is a whole
    number or a text; ``classes.txt`` beside the shards names the classes of numbers.

    Raises ``DataError`` for files that are missing, damaged or hold no images with labels.
    """
    where, choice = (place, None) if Path(place).exists() else parse_choice(place)
    source = f"shards:{place}"
    found = {path.name.removesuffix(SUFFIX): path for path in find_shards(where)}
    if choice is None:
        placed = place_names(found, source, "shards")
    else:
        forms = {name: [name, f"{name}{SUFFIX}", without_shard(name)] for name in found}
        placed = choice.place(forms, source)
    shards = {
        split: do_all(partial(list_shard, found[name]) for name in names) for split, names in placed.items() if names
    }
    labels: dict[SplitName, list[Label]] = {
        split: [label for shard in some for label in shard.labels] for split, some in shards.items()
    }
    classes, numbers = _number(labels, found[next(iter(found))].parent / NAMES)
    others = sum((shard.others for some in shards.values() for shard in some), Counter[str]())
    kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in sorted(others.items()))

    def contents(splits: Iterable[SplitName]) -> tuple[Members, MemberNames]:
        some = [shard for split in splits for shard in shards[split]]
        return Members(some), MemberNames(some)

    return labelled_set(
        source,
        classes,
        numbers,
        contents,
        split_seed,
        titles={split: without_shard(names[0]) for split, names in placed.items()},
        notes=[f"passed over {others.total()} files that are neither images nor labels: {kinds}"] if kinds else [],
        refuse=refuse,
    )


def _number(labels: dict[SplitName, list[Label]], names: Path) -> tuple[tuple[str, ...], dict[SplitName, Numbers]]:
    """Names of the classes, and labels as their numbers."""
    given = {label for some in labels.values() for label in some if label is not None}
    if all(isinstance(label, int) for label in given):
        count = max((int(label) for label in given), default=-1) + 1
        classes, numbers = number_labels(labels, read_names(names, count) if names.is_file() else None)
    else:
        texts = {split: [None if label is None else str(label) for label in some] for split, some in labels.items()}
        classes, numbers = number_labels(texts, None)
    return classes, {split: np.array(some, dtype=np.int64) for split, some in numbers.items()}


def find_shards(where: str) -> list[Path]:
    """The tar files of a folder, or that a pattern names, sorted. Raises ``DataError`` where there are none, and where
    two have one name."""
    if Path(where).is_dir():
        paths = sorted(Path(where).glob(f"*{SUFFIX}"))
    else:
        paths = sorted({Path(path) for name in _without_braces(where) for path in glob.glob(name) or [name]})  # noqa: PTH207  # of any root
    if not paths:
        raise DataError(f"{printable(where)} holds no tar files; shards are KEY.jpg beside KEY.cls in files *{SUFFIX}")
    if missing := [path for path in paths if not path.is_file()]:
        raise DataError(f"{len(missing)} of {len(paths)} shards are not there: {listed(map(str, missing), 5)}")
    if twice := [name for name, count in Counter(path.name for path in paths).items() if count > 1]:
        raise DataError(f"{printable(where)} means several files of the name {listed(twice, 5)}; shards differ in name")
    return paths


def _without_braces(pattern: str) -> Iterator[str]:
    """The patterns that one with braces stands for: ``a-{00..02}`` and ``a-{x,y}``."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = []
    for inner in parts[1::2]:
        if ends := re.fullmatch(r"(\d+)\.\.(\d+)", inner):
            first, last = map(int, ends.groups())
            if last - first >= MOST_NAMES:
                raise DataError(f"{{{inner}}} stands for more than {MOST_NAMES:,} shards")
            choices.append([f"{number:0{len(ends[1])}}" for number in range(first, last + 1)])
        else:
            choices.append(inner.split(","))
    for chosen in product(*choices):
        yield "".join(text for pair in zip(parts[::2], [*chosen, ""], strict=True) for text in pair)


def list_shard(path: Path) -> Shard:
    """What lies where in a tar file. Raises ``DataError`` for one that is compressed, damaged, or without images."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, Label] = {}
    others: Counter[str] = Counter()
    try:
        with tarfile.open(path, "r:") as archive, open(path, "rb", buffering=0) as file:
            for member in archive:
                if member.size < 0:
                    # The library would go back by so much, for good.
                    raise ValueError(f"{member.name} has {member.size} bytes")
                # The library would keep them all.
                archive.members = []  # type: ignore[attr-defined]  # not in the stub
                folder, slash, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                key, kind = f"{folder}{slash}{stem}", kind.lower()
                if not member.isreg() or member.issparse() or not stem:
                    continue
                if kind in IMAGES:
                    if key in images:
                        raise DataError(f"{path} has two images {key}; each KEY is one image and its label")
                    images[key] = member
                elif kind == LABEL:
                    labels[key] = _label(os.pread(file.fileno(), min(member.size, LONGEST_LABEL), member.offset_data))
                else:
                    others[f".{kind}"] += 1
            if os.pread(file.fileno(), tarfile.BLOCKSIZE, archive.offset) != tarfile.NUL * tarfile.BLOCKSIZE:
                raise ValueError("it ends too early")
    except DataError:
        raise
    except Exception as error:  # tarfile answers damage with several kinds of error
        raise DataError(
            f"{path} cannot be read as tar ({first_line(error)}); shards are not compressed, and whole: fetch it again"
        ) from error
    if not images:
        raise DataError(f"{path} holds no images: a shard has KEY.jpg (or .png, .webp, …) beside KEY.cls")
    return Shard(
        path=path,
        names=[member.name for member in images.values()],
        starts=np.array([member.offset_data for member in images.values()], dtype=np.int64),
        sizes=np.array([member.size for member in images.values()], dtype=np.int64),
        labels=[labels.get(key) for key in images],
        others=others,
    )


def _label(content: bytes) -> Label:
    text = content.decode(errors="replace").strip()
    if re.fullmatch(r"-?\d{1,9}", text):
        return None if int(text) == MISSING else int(text)
    return text or None

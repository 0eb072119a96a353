"""Which split a name stands for: one vocabulary for folders, Parquet files and data sets of the Hub.

A name is cut into words at capitals and at what is neither letter nor digit, and read without regard to case. Words
that only say what is numbered or stored (``set``, ``images``, ``part``, the numbers of shards) are passed over. One
word of ``WORDS`` makes a name that of a split; what is left is its ``rest``, such as ``cifar10`` of ``cifar10-train``.
A word counts as a whole alone: ``trains`` and ``contest`` are no splits. Places decide nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from resnetlab.core.errors import ConfigError, DataError, listed, printable
from resnetlab.data.dataset import SplitName

WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "valid", "val", "validate", "dev", "devel", "development"),
    "test": ("test", "testing"),
}
"""Words of each split. ``dev`` is validation, as in the shared tasks that coined it."""
UNPLACED = (
    *("eval", "evaluation", "holdout", "heldout", "full", "extra", "corrupted", "corrupt", "clean", "noisy", "subset"),
    *("unlabeled", "unlabelled", "unsupervised", "labeled", "labelled", "supervised", "fold", "query", "gallery"),
)
"""Words of parts that are no split by themselves: ``eval`` and ``holdout`` choose in one project and report in the
next, so they are asked for."""
FILLERS = (
    *("set", "sets", "data", "dataset", "split", "part", "shard", "chunk", "batch", "file", "of", "folder", "dir"),
    *("image", "images", "img", "imgs", "picture", "pictures", "photos", "parquet", "snappy", "zstd", "gzip"),
)

_SPLIT_OF = {word: split for split, words in WORDS.items() for word in words}
_PART = re.compile(rf"({'|'.join(sorted((*_SPLIT_OF, *UNPLACED), key=len, reverse=True))})({'|'.join(FILLERS)})?(\d*)")
_FILLER = re.compile(rf"({'|'.join(FILLERS)})\d*")
_YEAR = re.compile(r"(19|20)\d\d")
_HASH = re.compile(r"(?=.*\d)[0-9a-f]{8,}")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SHARD = re.compile(r"([-_./ ]\d+(-of-\d+)?)?(-(?=\w*\d)[0-9a-f]{8,})?$")
_CHOICE = re.compile(r"\[([^\[\]]*=[^\[\]]*)\]")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a name says: its split where its words are those of one, and what is left of it.

    ``rest`` are the words that are neither of a split nor fillers. ``stem`` is what shards of one table have in common:
    all words but for numbers. ``unplaced`` is whether a word is that of a part that is no split by itself.
    """

    split: SplitName | None
    rest: tuple[str, ...] = ()
    stem: tuple[str, ...] = ()
    unplaced: bool = False

    @property
    def exact(self) -> bool:
        """Whether the name says which split it is, and nothing else."""
        return self.split is not None and not self.rest


def read_name(name: str) -> Reading:
    """What ``name`` says of its split."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", _UUID.sub("", name))
    splits: set[SplitName] = set()
    rest: list[str] = []
    stem: list[str] = []
    unplaced = False
    for token in re.split(r"[\W_]+", spaced.casefold()):
        year, number = _YEAR.fullmatch(token), re.fullmatch(r"\d*|of|c\d+", token)
        if (number and not year) or _HASH.fullmatch(token):
            continue
        part, filler = _PART.fullmatch(token), _FILLER.fullmatch(token)
        year = year or (part and _YEAR.fullmatch(part[3]))
        if part and part[1] in _SPLIT_OF:
            splits.add(_SPLIT_OF[part[1]])
            # A year is no number of a shard: train2014 and train2017 are two sets.
            rest += [part[3]] if year else []
        elif not filler:
            rest.append(token)
            unplaced = unplaced or part is not None
        stem.append(token if year or not (part or filler) else token.rstrip("0123456789"))
    split = next(iter(splits)) if len(splits) == 1 else None
    return Reading(split=split, rest=tuple(rest), stem=tuple(stem), unplaced=unplaced or len(splits) > 1)


def without_shard(name: str) -> str:
    """``name`` without the number of its shard: ``train`` for ``train-00000-of-00002``."""
    return _SHARD.sub("", name) or name


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a user wrote in brackets, ``[train=a+b,test=c]``: for each split the patterns of its names."""

    patterns: Mapping[SplitName, tuple[str, ...]]

    def place(self, names: Mapping[str, Sequence[str]], source: str) -> dict[SplitName, list[str]]:
        """The names of each split; ``names`` has for each the forms in which a pattern may mean it.

        Raises ``ConfigError`` for a pattern that means none, and for a name that two splits want.
        """
        found: dict[SplitName, list[str]] = {}
        owner: dict[str, SplitName] = {}
        for split, patterns in ((split, self.patterns[split]) for split in WORDS if split in self.patterns):
            found[split] = []
            for pattern in patterns:
                meant = [
                    name
                    for name, forms in names.items()
                    if pattern == "." or any(fnmatchcase(form, pattern) for form in forms)
                ]
                if not meant:
                    raise ConfigError(f"{source}: {split}={pattern} means nothing here; there is {listed(names)}")
                for name in meant:
                    if owner.setdefault(name, split) != split:
                        twice = f"{printable(name)} is both {owner[name]} and {split}"
                        raise ConfigError(f"{source}: {twice}; name it once")
                found[split] += [name for name in meant if name not in found[split]]
        return found


def parse_choice(place: str) -> tuple[str, Choice | None]:
    """A place without its brackets, and what they say; None without brackets.

    Raises ``ConfigError`` for brackets that name no training split, or another split than the three.
    """
    found = _CHOICE.search(place)
    if found is None:
        return place, None
    patterns: dict[SplitName, tuple[str, ...]] = {}
    for part in found[1].split(","):
        key, _, value = (text.strip() for text in part.partition("="))
        split = _SPLIT_OF.get(key.casefold())
        names = tuple(name.strip() for name in value.split("+") if name.strip())
        if split is None or not names or split in patterns:
            raise ConfigError(
                f"[{found[1]}] is not possible: write [train=NAME,validation=NAME,test=NAME], each split once and the "
                "last two if there are any; a + stands between several names, a * for any letters"
            )
        patterns[split] = names
    if "train" not in patterns:
        raise ConfigError(f"[{found[1]}] names no training images; add train=NAME")
    return place[: found.start()] + place[found.end() :], Choice(patterns=patterns)


def place_names(names: Iterable[str], source: str, kind: str) -> dict[SplitName, list[str]]:
    """The names of each split, where every name says by its words which it is; ``kind`` is what has the names.

    Shards of one name are one. A name alone that says nothing is training.

    Raises ``DataError`` for names that leave anything to be guessed, with what to write instead.
    """
    readings = {name: read_name(name) for name in names}
    stems = {name: reading.stem for name, reading in readings.items()}
    if len(set(stems.values())) == 1 and not any(each.split or each.unplaced for each in readings.values()):
        return {"train": list(readings)}
    placed: dict[SplitName, list[str]] = {}
    for split in WORDS:
        if meant := [name for name, reading in readings.items() if reading.split == split]:
            placed[split] = meant
    troubles = []
    if left := [name for name, reading in readings.items() if reading.split is None]:
        troubles.append(f"which split is {listed(_short(left))}?")
    for split, meant in placed.items():
        if len({stems[name] for name in meant}) > 1:
            troubles.append(f"{listed(_short(meant))} are several names for {split}")
    if len({reading.rest for reading in readings.values() if reading.split}) > 1 and not troubles:
        troubles.append(f"{listed(_short(readings))} differ in more than their split")
    if "train" not in placed and not troubles:
        troubles.append(f"{listed(_short(readings))}, and nothing to train on")
    if troubles:
        raise DataError(
            f"{source} has {kind} whose split is not clear: {'; '.join(troubles)}. Names say it by one of the words "
            f"{vocabulary()}; or say it yourself: {suggestion(source, placed)}"
        )
    return placed


def vocabulary() -> str:
    """The words of the splits, for a message."""
    return ", ".join(f"{first} ({', '.join(others)})" for first, *others in WORDS.values())


def suggestion(source: str, placed: Mapping[SplitName, Sequence[str]], *, whole: bool = False) -> str:
    """What a user can write to say which names are which split; columns behind a # stay behind it.

    Unless ``placed`` is the ``whole`` of it, dots stand for what has to be filled in.
    """
    place, mark, columns = source.partition("#")
    sure = {split: _short(names) for split, names in placed.items()}
    shown = {split: printable(names[0]) if len(names) == 1 else "…" for split, names in sure.items()}
    if not whole:
        shown = {"train": "…", **({"test": "…"} if len(shown) < 2 else {}), **shown}
    shown = {split: shown[split] for split in WORDS if split in shown}
    return f"{place}[{','.join(f'{split}={name}' for split, name in shown.items())}]{mark}{columns}"


def _short(names: Iterable[str]) -> list[str]:
    """Names of shards once each."""
    return list(dict.fromkeys(map(without_shard, names)))

"""Images and labels in tables, as the library ``datasets`` opens them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.core.errors import ConfigError, DataError, printable
from resnetlab.data.dataset import Numbers, SplitName, split_by_class
from resnetlab.data.ingest import EncodedSet

SPLIT_WORDS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""What the table of each split may be called; of several the first is read."""
LABEL_WORDS = ("label", "labels", "class", "category", "target", "y")
MISSING = -1
"""Label of an image whose table gives it none, as the Hub does for test images that are kept secret."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the two columns."""

    image: str
    label: str


def choose_columns(features: Mapping[str, Any], named: Sequence[str], source: str) -> Columns:
    """Images: the column of the type Image, or of structs with ``bytes``. Labels: the column of the type ClassLabel,
    else the one of numbers or texts whose name says that it holds labels. ``named`` are columns that the user chose.

    Raises ``ConfigError`` where several could be meant, or ``named`` has none of ``features``; ``DataError`` where
    there is none.
    """
    unknown = [name for name in named if name not in features]
    if unknown:
        raise ConfigError(f"{source} has no column {unknown[0]!r}; its columns: {_list(features)}")
    images = [name for name, feature in features.items() if is_image(feature)]
    labels = [name for name, feature in features.items() if hasattr(feature, "names")]
    plain = [name for name, feature in features.items() if is_plain(feature)]
    labels = labels or [name for name in plain if looks_like_label(name)]
    chosen = [name for name in named if name not in images]
    refused = [name for name in chosen if name not in (*labels, *plain)]
    if refused:
        raise ConfigError(f"column {refused[0]!r} of {source} holds neither images nor labels; {_list(features)}")
    return Columns(
        image=_only([name for name in named if name in images] or images, "images", source, features),
        label=_only(chosen or labels, "labels", source, features),
    )


def is_image(feature: Any) -> bool:
    """Whether a column's type is Image, or a struct with the encoded image as ``bytes``."""
    return type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and "bytes" in feature)


def is_plain(feature: Any) -> bool:
    """Whether a column holds whole numbers or texts."""
    kind = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and kind.startswith(("int", "uint", "string", "large_string"))


def looks_like_label(name: str) -> bool:
    """Whether the name of a column is one that labels usually have, such as ``label`` or ``fine_label``."""
    return name.lower().rpartition("_")[2] in LABEL_WORDS


def number_labels(
    columns: Mapping[str, Sequence[Any]], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, list[int]]]:
    """Names of the classes, and each split's labels as their numbers, ``MISSING`` for none.

    With ``names``, of a ClassLabel, the labels are numbers already; else the classes are the different values, sorted.
    """
    if names is not None:
        known = {number: number for number in range(len(names))}
        classes = tuple(map(str, names))
    else:
        values = {value for column in columns.values() for value in column if value is not None}
        known = {value: number for number, value in enumerate(sorted(values))}
        classes = tuple(map(str, known))
    return classes, {split: [known.get(value, MISSING) for value in column] for split, column in columns.items()}


def _only(candidates: Sequence[str], what: str, source: str, features: Mapping[str, Any]) -> str:
    if not candidates:
        raise DataError(f"{source} has no column of {what}; its columns: {_list(features)}")
    if len(candidates) > 1:
        names = [printable(name) for name in candidates]
        raise ConfigError(
            f"{source} has several columns of {what}: {', '.join(names)}; choose one by writing it behind a #, such as "
            f"{source.partition('#')[0]}#{names[0]}"
        )
    return candidates[0]


def _list(features: Mapping[str, Any]) -> str:
    return ", ".join(f"{printable(name)} ({type(feature).__name__})" for name, feature in list(features.items())[:20])


class Cells(Sequence[bytes | Path]):
    """The images of several tables, one after the other, each as the bytes of its file, or as the file where the table
    names one, which lies in ``base``.

    It can be pickled for processes that decode: only where the tables lie goes along, not what is in them.
    """

    def __init__(self, tables: Mapping[str, Any], column: str, base: Path | None) -> None:
        self.tables, self.column, self.base = tuple(tables.items()), column, base
        self.ends = np.cumsum([len(table) for table in tables.values()])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, number: int) -> bytes | Path:  # type: ignore[override]  # no slices
        _, _, cell = self.find(number)
        content, path = cell.get("bytes"), cell.get("path")
        # Whatever else a table holds there, a number above all, must not reach open(): it would name an open file.
        if content is None and isinstance(path, str) and path:
            return (self.base or Path()) / path
        return content if isinstance(content, bytes) else b""

    def find(self, number: int) -> tuple[str, int, dict[str, Any]]:
        """Table and row of an image, and what stands there."""
        place = int(np.searchsorted(self.ends, number, side="right"))
        name, table = self.tables[place]
        row = int(number - self.ends[place] + len(table))
        return name, row, table[row][self.column] or {}


class RowNames(Sequence[str]):
    """What each image is called, put together when it is asked for: its row, and its file where the table names it."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, number: int) -> str:  # type: ignore[override]  # no slices
        table, row, cell = self.cells.find(number)
        path = cell.get("path")
        place = f"row {row} of {table}"
        return f"{printable(path)} ({place})" if isinstance(path, str) and path else place


def read_tables(
    tables: Mapping[str, Any], source: str, named: Sequence[str], split_seed: int, base: Path | None
) -> EncodedSet:
    """The tables of a source, none of their images decoded; files that cells name lie in ``base``.

    A table is the split that it is named by (``SPLIT_WORDS``). One alone is split by class: a fifth is the test.

    Raises ``DataError`` for tables without images or labels, ``ConfigError`` where several columns could be meant.
    """
    features = [table.features for table in tables.values()]
    columns = choose_columns(features[0], named, source)
    if any(other.get(name) != features[0][name] for other in features for name in (columns.image, columns.label)):
        raise DataError(f"{source}: the splits differ in the types of {columns.image} and {columns.label}")
    values = {name: table.select_columns([columns.label])[:][columns.label] for name, table in tables.items()}
    classes, labels = number_labels(values, getattr(features[0][columns.label], "names", None))
    chosen, notes = choose_splits({name: np.array(column, dtype=np.int64) for name, column in labels.items()}, source)
    cells = Cells({name: _undecoded(tables[name], columns) for name in chosen.values()}, columns.image, base)
    together = np.concatenate([labels[name] for name in chosen.values()]).astype(np.int64)
    ends = cells.ends.tolist()
    whole: dict[SplitName, Numbers] = {
        split: np.arange(start, end) for split, start, end in zip(chosen, [0, *ends], ends, strict=False)
    }
    if len(whole) == 1:
        train, test = split_by_class(together, split_seed)
        whole = {"train": np.array(train, dtype=np.int64), "test": np.array(test, dtype=np.int64)}
        notes.append(f"split by split_seed={split_seed}: a fifth of every class is the test")
    return EncodedSet(
        source=source,
        classes=classes,
        cells=cells,
        labels=together,
        names=RowNames(cells),
        divide=lambda numbers: {split: part[np.isin(part, numbers)] for split, part in whole.items()},
        digest=lambda content: hashlib.sha256(content).digest(),
        notes=(f"images from column {printable(columns.image)}, labels from column {printable(columns.label)}", *notes),
    )


def split_of(name: str) -> SplitName | None:
    """The split that a table of this name is."""
    return next((split for split, words in SPLIT_WORDS.items() if name in words), None)


def choose_splits(labels: Mapping[str, Numbers], source: str) -> tuple[dict[SplitName, str], list[str]]:
    """The table of each split, and what should be said of how it was found.

    The first table is training where none is named so, and of two without any such name the other is the test. A test
    without labels, which is kept secret, is none.

    Raises ``DataError`` for tables that lack single labels.
    """
    names, notes = list(labels), []
    found: dict[SplitName, str] = {}
    for name in names:
        if split := split_of(name):
            found.setdefault(split, name)
    if "train" not in found:
        found = {"train": names[0], **{split: name for split, name in found.items() if name != names[0]}}
        if len(found) == 1 < len(names):
            found["test"] = names[1]
    for split, name in list(found.items()):
        unknown, count = int((labels[name] == MISSING).sum()), len(labels[name])
        if unknown == count and split != "train":
            del found[split]
            notes.append(f"{name} has no labels")
        elif unknown or not count:
            raise DataError(
                f"{source}: {unknown} of the {count} images of {name} have no label, or one beyond its classes; every "
                "image needs one"
            )
    notes += [f"{split} is {name}" for split, name in found.items() if split != name]
    left = [name for name in names if name not in found.values() and (labels[name] != MISSING).any()]
    return found, [*notes, *([f"not read: {', '.join(map(printable, left))}"] if left else [])]


def _undecoded(table: Any, columns: Columns) -> Any:
    """The table's images alone, as the bytes that are stored."""
    images = table.select_columns([columns.image])
    feature = images.features[columns.image]
    if isinstance(feature, dict):
        return images
    return images.cast_column(columns.image, type(feature)(decode=False))

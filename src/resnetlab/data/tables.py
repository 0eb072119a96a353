"""Images and labels in tables, as the library ``datasets`` opens them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.core.errors import ConfigError, DataError, do_all, printable
from resnetlab.data.classes import MISSING, Refuse, raise_it, without_unlabelled
from resnetlab.data.dataset import Chosen, Numbers, SplitName, split_by_class
from resnetlab.data.opening import EncodedSet

NUMBERS = ("int", "uint", "float", "double")
"""How the types of numbers begin. pandas stores whole numbers as floats where one is missing."""
LABEL_WORDS = ("label", "labels", "class", "category", "target", "y")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the two columns."""

    image: str
    label: str


def choose_columns(features: Mapping[str, Any], named: Sequence[str], source: str) -> Columns:
    """Images: the column of the type Image, or of structs with ``bytes``, else the one of bytes. Labels: the column of
    the type ClassLabel, else the one of numbers or texts whose name says that it holds labels. ``named`` are columns
    that the user chose.

    Raises ``ConfigError`` where ``named`` has none of ``features``; ``DataError`` where there is none, or several could
    be meant.
    """
    unknown = [name for name in named if name not in features]
    if unknown:
        raise ConfigError(f"{source} has no column {unknown[0]!r}; its columns: {_list(features)}")
    images = [name for name, feature in features.items() if is_image(feature)]
    images = images or [name for name, feature in features.items() if is_binary(feature)]
    labels = [name for name, feature in features.items() if hasattr(feature, "names")]
    plain = [name for name, feature in features.items() if is_plain(feature)]
    labels = labels or [name for name in plain if looks_like_label(name)]
    chosen = [name for name in named if name not in images]
    refused = [name for name in chosen if name not in (*labels, *plain)]
    if refused:
        raise ConfigError(f"column {refused[0]!r} of {source} holds neither images nor labels; {_list(features)}")
    image, label = do_all(
        partial(_only, candidates, what, source, features)
        for what, candidates in (
            ("images", [name for name in named if name in images] or images),
            ("labels", chosen or labels),
        )
    )
    return Columns(image=image, label=label)


def is_image(feature: Any) -> bool:
    """Whether a column's type is Image, or a struct with the encoded image as ``bytes``."""
    return type(feature).__name__ == "Image" or (isinstance(feature, Mapping) and "bytes" in feature)


def is_binary(feature: Any) -> bool:
    """Whether a column holds bytes, which may be those of encoded images."""
    return getattr(feature, "dtype", None) in ("binary", "large_binary")


def is_plain(feature: Any) -> bool:
    """Whether a column holds numbers or texts."""
    kind = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and kind.startswith((*NUMBERS, "string", "large_string"))


def looks_like_label(name: str) -> bool:
    """Whether the name of a column is one that labels usually have, such as ``label`` or ``fine_label``."""
    return name.lower().rpartition("_")[2] in LABEL_WORDS


def number_labels(
    columns: Mapping[SplitName, Sequence[Any]], names: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[SplitName, list[int]]]:
    """Names of the classes, and each split's labels as their numbers, ``MISSING`` for none.

    With ``names``, of a ClassLabel, the labels are numbers already; else the classes are the different values, sorted,
    but for those that mean none: null, NaN, ``MISSING`` and an empty text. Raises ``DataError`` for fractions.
    """
    if names is not None:
        known = {number: number for number in range(len(names))}
        classes = tuple(map(str, names))
    else:
        values = {value for column in columns.values() for value in column if not _means_none(value)}
        if odd := [value for value in values if isinstance(value, float) and not value.is_integer()]:
            raise DataError(f"{min(odd)} is no label: labels are whole numbers or texts")
        known = {value: number for number, value in enumerate(sorted(values))}
        classes = tuple(str(int(value) if isinstance(value, float) else value) for value in known)
    return classes, {split: [known.get(value, MISSING) for value in column] for split, column in columns.items()}


def _means_none(value: Any) -> bool:
    # NaN alone is not itself.
    return value is None or value == MISSING or value != value or (isinstance(value, str) and not value.strip())


def _only(candidates: Sequence[str], what: str, source: str, features: Mapping[str, Any]) -> str:
    if not candidates:
        raise DataError(f"{source} has no column of {what}; its columns: {_list(features)}")
    if len(candidates) > 1:
        names = [printable(name) for name in candidates]
        raise DataError(
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
        cell = table[row][self.column]
        return name, row, {"bytes": cell} if isinstance(cell, bytes) else cell or {}


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
    tables: Mapping[SplitName, Any],
    source: str,
    named: Sequence[str],
    split_seed: int,
    base: Path | None,
    *,
    titles: Mapping[SplitName, str],
    notes: Sequence[str] = (),
    refuse: Refuse = raise_it,
) -> EncodedSet:
    """The tables of a source's splits, none of their images decoded; files that cells name lie in ``base``.

    ``titles`` is what the table of each split is called. Training images alone are split by class: a fifth is the test.

    Raises ``DataError`` for tables without images or labels, and where several columns could be meant.
    """
    first = next(iter(tables.values())).features
    columns = choose_columns(first, named, source)
    secret = [split for split, table in tables.items() if split != "train" and _lacks(table.features, columns.label)]
    tables = {split: table for split, table in tables.items() if split not in secret}
    features = [table.features for table in tables.values()]
    if any(
        _differ(other.get(name), features[0][name]) for other in features for name in (columns.image, columns.label)
    ):
        raise DataError(f"{source}: the splits differ in the types of {columns.image} and {columns.label}")
    values = {split: table.select_columns([columns.label])[:][columns.label] for split, table in tables.items()}
    classes, numbers = number_labels(values, getattr(features[0][columns.label], "names", None))
    if len(set(titles.values())) < len(titles):
        titles = {split: str(split) for split in titles}

    def contents(splits: Iterable[SplitName]) -> tuple[Cells, RowNames]:
        cells = Cells({titles[split]: _undecoded(tables[split], columns) for split in splits}, columns.image, base)
        return cells, RowNames(cells)

    return labelled_set(
        source,
        classes,
        {split: np.array(column, dtype=np.int64) for split, column in numbers.items()},
        contents,
        split_seed,
        titles=titles,
        notes=(
            f"images from column {printable(columns.image)}, labels from column {printable(columns.label)}",
            *(f"{titles[split]} has no labels and is left out" for split in secret),
            *notes,
        ),
        refuse=refuse,
    )


def labelled_set(
    source: str,
    classes: tuple[str, ...],
    numbers: Mapping[SplitName, Numbers],
    contents: Callable[[Iterable[SplitName]], tuple[Sequence[bytes | Path], Sequence[str]]],
    split_seed: int,
    *,
    titles: Mapping[SplitName, str],
    notes: Sequence[str],
    refuse: Refuse,
) -> EncodedSet:
    """The set whose splits have the labels ``numbers``; ``contents`` gives images and names of some splits, one after
    the other. Splits without labels are left out. Training images alone are split by class: a fifth is the test."""
    labels, unlabelled = without_unlabelled(numbers, source, titles, refuse)
    cells, names = contents(labels)
    together = np.concatenate(list(labels.values()))
    # All of them, but where a lack of labels was not refused.
    labelled = np.flatnonzero(together != MISSING)
    together = together[labelled]
    ends = np.cumsum([(part != MISSING).sum() for part in labels.values()]).tolist()
    whole: dict[SplitName, Numbers] = {
        split: np.arange(start, end) for split, start, end in zip(labels, [0, *ends], ends, strict=False)
    }
    said = [f"{split} is {printable(titles[split])}" for split in labels if titles[split] != split and len(labels) > 1]
    said += unlabelled
    if len(whole) == 1:
        train, test = split_by_class(together, split_seed)
        whole = {"train": train, "test": test}
        said.append(f"split by split_seed={split_seed}: a fifth of every class is the test")
    return EncodedSet(
        source=source,
        classes=classes,
        cells=Chosen(cells, labelled),
        labels=together,
        names=Chosen(names, labelled),
        divide=lambda numbers: {split: part[np.isin(part, numbers)] for split, part in whole.items()},
        notes=(*notes, *said),
    )


def _differ(one: Any, other: Any) -> bool:
    """Whether two columns are of different types; numbers are one, however they are stored."""
    kinds = [str(getattr(feature, "dtype", "")) for feature in (one, other)]
    plain = all(is_plain(feature) and not hasattr(feature, "names") for feature in (one, other))
    return bool(one != other) and not (plain and all(kind.startswith(NUMBERS) for kind in kinds))


def _lacks(features: Mapping[str, Any], label: str) -> bool:
    """Whether a table has no labels at all: no column of them, or one of the type null."""
    return label not in features or getattr(features[label], "dtype", None) == "null"


def _undecoded(table: Any, columns: Columns) -> Any:
    """The table's images alone, as the bytes that are stored."""
    images = table.select_columns([columns.image])
    feature = images.features[columns.image]
    if type(feature).__name__ != "Image":
        return images
    return images.cast_column(columns.image, type(feature)(decode=False))

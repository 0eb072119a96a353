"""Images and labels in tables, one table a split, as the library ``datasets`` opens them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.core.errors import ConfigError, DataError, printable
from resnetlab.data.cells import Cells, Name, Part
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import ImageData, split_by_class
from resnetlab.data.ingest import decode_parts

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


def read_tables(
    tables: Mapping[str, Any],
    source: str,
    named: Sequence[str],
    decode: DecodeConfig,
    split_seed: int,
    on_progress: Callable[[int, int], None] | None,
    base: Path | None,
) -> ImageData:
    """The tables of a source as a data set; files that cells name lie in ``base``.

    Of several tables the first that is no training table and has labels is the test; one table alone is split by class.

    Raises ``DataError`` for tables without images or labels, and for images that cannot be read unless they are to
    be left out; ``ConfigError`` where several columns could be meant.
    """
    features = [table.features for table in tables.values()]
    columns = choose_columns(features[0], named, source)
    if any(other.get(name) != features[0][name] for other in features for name in (columns.image, columns.label)):
        raise DataError(f"{source}: the splits differ in the types of {columns.image} and {columns.label}")
    values = {name: table.select_columns([columns.label])[:][columns.label] for name, table in tables.items()}
    classes, labels = number_labels(values, getattr(features[0][columns.label], "names", None))
    parts = {
        name: Part(
            table=name,
            cells=Cells(_undecoded(table, columns), columns.image, np.arange(len(table)), base),
            labels=np.array(labels[name], dtype=np.int64),
        )
        for name, table in tables.items()
    }
    chosen, notes = _choose_splits(parts, source, split_seed)
    images, more = decode_parts(chosen, source, decode, on_progress)
    notes = [
        f"images from column {printable(columns.image)}, labels from column {printable(columns.label)}",
        *notes,
        *more,
    ]
    return ImageData(source=source, train=images["train"], test=images["test"], classes=classes, notes=tuple(notes))


def _undecoded(table: Any, columns: Columns) -> Any:
    """The table's images alone, as the bytes that are stored."""
    images = table.select_columns([columns.image])
    feature = images.features[columns.image]
    if isinstance(feature, dict):
        return images
    return images.cast_column(columns.image, type(feature)(decode=False))


def _choose_splits(parts: Mapping[str, Part], source: str, seed: int) -> tuple[dict[Name, Part], list[str]]:
    """Training and test, and what should be said of how they were found."""
    names = list(parts)
    training = parts[names[0]]
    secret = [name for name in names[1:] if (parts[name].labels == MISSING).all()]
    tests = [name for name in names[1:] if name not in secret]
    for name in (names[0], *tests[:1]):
        unknown = int((parts[name].labels == MISSING).sum())
        if unknown or not len(parts[name].labels):
            raise DataError(
                f"{source}: {unknown} of the {len(parts[name].labels)} images of {name} have no label, or one beyond "
                "its classes; every image needs one"
            )
    if tests:
        left = [f"{name} has no labels" for name in secret] + [f"{name} is left out" for name in tests[1:]]
        used = [f"the test is {tests[0]}"] if tests[0] != "test" else []
        return {"train": training, "test": parts[tests[0]]}, [*used, *left]
    train, test = (training.only(np.array(half, dtype=np.int64)) for half in split_by_class(training.labels, seed))
    return {"train": train, "test": test}, [f"split by split_seed={seed}: a fifth of every class is the test"]

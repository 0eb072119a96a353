"""Pictures and labels in tables, one table a split, as the library ``datasets`` opens them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.data.dataset import ImageData
from resnetlab.data.cells import Cells, Name, Part
from resnetlab.data.columns import MISSING, Columns, choose_columns, number_labels
from resnetlab.data.config import DecodeConfig
from resnetlab.data.ingest import decode_parts
from resnetlab.data.opened import shown
from resnetlab.data.split import split_by_class
from resnetlab.core.errors import DataError


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

    Raises ``DataError`` for tables without pictures or labels, and for pictures that cannot be read unless they are to
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
    pictures, more = decode_parts(chosen, source, decode, on_progress)
    notes = [f"pictures from column {shown(columns.image)}, labels from column {shown(columns.label)}", *notes, *more]
    return ImageData(source=source, train=pictures["train"], test=pictures["test"], classes=classes, notes=tuple(notes))


def _undecoded(table: Any, columns: Columns) -> Any:
    """The table's pictures alone, as the bytes that are stored."""
    pictures = table.select_columns([columns.image])
    feature = pictures.features[columns.image]
    if isinstance(feature, dict):
        return pictures
    return pictures.cast_column(columns.image, type(feature)(decode=False))


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
                f"{source}: {unknown} of the {len(parts[name].labels)} pictures of {name} have no label, or one beyond "
                "its classes; every picture needs one"
            )
    if tests:
        left = [f"{name} has no labels" for name in secret] + [f"{name} is left out" for name in tests[1:]]
        used = [f"the test is {tests[0]}"] if tests[0] != "test" else []
        return {"train": training, "test": parts[tests[0]]}, [*used, *left]
    train, test = (training.only(np.array(half, dtype=np.int64)) for half in split_by_class(training.labels, seed))
    return {"train": train, "test": test}, [f"split by split_seed={seed}: a fifth of every class is the test"]

"""What came of each file, as a row: in a CSV, JSON lines or Parquet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from resnetlab.core.errors import ConfigError, load_extra, printable
from resnetlab.core.files import atomic_stream
from resnetlab.deploy.preprocessing import Prediction

DIGITS = 6
"""Decimals of a probability in a file."""
NO_ANSWER = "the network gave no finite number"
Value = TypeVar("Value")


@dataclass(frozen=True)
class Row:
    """What came of one file: its prediction, or why there is none."""

    path: str
    prediction: Prediction
    error: str | None = None


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Lists of ``size`` values, the last one of what is left."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def plain(row: Row) -> list[Any]:
    """A row as it stands in the journal and, flat, in files."""
    return [row.path, row.prediction.classes, [round(p, DIGITS) for p in row.prediction.probabilities], row.error]


def columns(top: int) -> list[str]:
    """The names of the columns of a file."""
    answers = [f"{name}{f'_{k}' if k > 1 else ''}" for k in range(1, top + 1) for name in ("answer", "probability")]
    return ["path", *answers, "error"]


def flat(plain: Sequence[Any], top: int) -> list[Any]:
    """The values of a row in the order of ``columns``; a stray byte in a path is escaped."""
    path, classes, probabilities, error = plain
    pairs = list(zip(classes, probabilities, strict=True)) or [(None, None)] * top
    known = path.encode("utf-8", "backslashreplace").decode()
    return [known, *(value for pair in pairs for value in pair), error]


def row_values(row: Row, top: int) -> dict[str, Any]:
    """A row by its columns."""
    return dict(zip(columns(top), flat(plain(row), top), strict=True))


def check_format(out: Path) -> None:
    """Raise ``ConfigError`` for a suffix that says no format, ``MissingExtraError`` without the format's library."""
    if out.suffix not in WRITERS:
        raise ConfigError(f"{printable(out)} is not possible: the name must end in {', '.join(WRITERS)}")
    if out.suffix == ".parquet":
        _arrow()


def write_rows(out: Path, rows: Iterable[Sequence[Any]], top: int) -> int:
    """Write rows as ``plain`` gives them into ``out``, whole or not at all; how many have no answer."""
    bad = 0

    def values() -> Iterator[list[Any]]:
        nonlocal bad
        for row in rows:
            bad += row[3] is not None
            yield flat(row, top)

    with atomic_stream(out) as stream:
        WRITERS[out.suffix](stream, columns(top), values())
    return bad


def _csv(stream: BinaryIO, names: list[str], rows: Iterable[list[Any]]) -> None:
    with _text(stream) as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow(f"{value:.{DIGITS}f}" if isinstance(value, float) else value for value in row)


def _jsonl(stream: BinaryIO, names: list[str], rows: Iterable[list[Any]]) -> None:
    for row in rows:
        stream.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False).encode() + b"\n")


@contextmanager
def _text(stream: BinaryIO) -> Iterator[TextIOWrapper]:
    text = TextIOWrapper(stream, "utf-8", newline="")
    try:
        yield text
    finally:
        text.detach()  # else it would close the stream, which is not its own


def _parquet(stream: BinaryIO, names: list[str], rows: Iterable[list[Any]]) -> None:
    arrow, parquet = _arrow()
    kinds = [arrow.float64() if name.startswith("probability") else arrow.string() for name in names]
    schema = arrow.schema(list(zip(names, kinds, strict=True)))
    with parquet.ParquetWriter(stream, schema) as writer:
        for some in batched(rows, 1 << 14):
            made = [arrow.array(values, kind) for values, kind in zip(zip(*some, strict=True), kinds, strict=True)]
            writer.write_table(arrow.table(made, schema=schema))


def _arrow() -> tuple[Any, Any]:
    instead = "; or write .csv or .jsonl"
    return tuple(load_extra(name, "writing .parquet", "hub", instead) for name in ("pyarrow", "pyarrow.parquet"))


WRITERS: dict[str, Callable[[BinaryIO, list[str], Iterable[list[Any]]], None]] = {
    ".csv": _csv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}

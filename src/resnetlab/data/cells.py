"""Encoded images in the rows of a table, before they are decoded."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

Name = Literal["train", "test"]
Numbers = np.ndarray[Any, np.dtype[np.int64]]


class Cells(Sequence[bytes | Path]):
    """The images in ``rows`` of a table, each as the bytes of its file, or as the file where the table names one.

    It can be pickled for processes that decode: only where the table lies goes along, not what is in it.
    """

    def __init__(self, table: Any, column: str, rows: Numbers, base: Path | None) -> None:
        self.table, self.column, self.rows, self.base = table, column, rows, base

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        cell = self.table[int(self.rows[number])][self.column] or {}
        content, path = cell.get("bytes"), cell.get("path")
        # Whatever else a table holds there, a number above all, must not reach open(): it would name an open file.
        if content is None and isinstance(path, str) and path:
            return (self.base or Path()) / path
        return content if isinstance(content, bytes) else b""

    def only(self, numbers: Numbers) -> "Cells":
        """Those of the given numbers, in that order."""
        return Cells(self.table, self.column, self.rows[numbers], self.base)


class RowNames(Sequence[str]):
    """How a message calls each image, put together when it is asked for."""

    def __init__(self, table: str, rows: Numbers) -> None:
        self.table, self.rows = table, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: Any) -> Any:
        return f"row {self.rows[number]} of {self.table}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A split before its images are decoded: the name of its table, its images, and their labels ``(N,)``."""

    table: str
    cells: Cells
    labels: Numbers

    @property
    def names(self) -> RowNames:
        return RowNames(self.table, self.cells.rows)

    def only(self, numbers: Numbers) -> "Part":
        """The images of the given numbers, in that order."""
        return replace(self, cells=self.cells.only(numbers), labels=self.labels[numbers])

    def without(self, numbers: Sequence[int]) -> "Part":
        """All images but those of the given numbers."""
        return self.only(np.delete(np.arange(len(self.labels)), numbers))

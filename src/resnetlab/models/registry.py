"""Named rows with wildcards; the zoo of networks is one."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from resnetlab.core.errors import unknown_name

Row = TypeVar("Row")


class Registry(Mapping[str, Row], Generic[Row]):
    """A read-only table of named rows.

    A name that is not in it is answered with the nearest names, as a ``ConfigError``.
    """

    def __init__(self, kind: str, rows: Mapping[str, Row]) -> None:
        self.kind = kind
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Row:
        if name not in self._rows:
            raise unknown_name(self.kind, name, self._rows)
        return self._rows[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def matching(self, pattern: str) -> list[str]:
        """The names that match a shell pattern (``*``, ``?``, ``[…]``), in the order of the table."""
        return [name for name in self._rows if fnmatchcase(name, pattern)]

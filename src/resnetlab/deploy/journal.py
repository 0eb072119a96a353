"""A journal: batches of rows, a line of JSON each, appended as they come. What was killed resumes after its last line.

The first line says the settings, the last one that all is done. A batch is a line, so a torn one, or any that is
damaged, is cut off with all behind it, and is computed again.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import sleep
from typing import Any, BinaryIO

from resnetlab.core.errors import ConfigError, printable
from resnetlab.core.files import storage_errors

END = "end"
WAIT = 0.2
"""Seconds between two looks at the journal of another rank."""


@dataclass(kw_only=True)
class Journal:
    """The journal at ``path``, opened to be read, then appended to, by this process alone."""

    path: Path
    stream: BinaryIO
    ended: bool = False

    def batches(self) -> Iterator[list[Any]]:
        """The batches that it holds; what is not whole is cut off."""
        start = self.stream.tell()
        for line in self.stream:
            value = _parse(line)
            self.ended = isinstance(value, dict)
            if not isinstance(value, list):
                break
            start += len(line)
            yield value
        if not self.ended:
            with storage_errors(self.path):
                self.stream.truncate(start)
                self.stream.seek(start)

    def append(self, value: Any) -> None:
        """Add a line. It is with the system at once, and so outlives this process; the disk has it when it has."""
        with storage_errors(self.path):
            self.stream.write(_line(value))
            self.stream.flush()

    def end(self, value: Any) -> None:
        """Say that all is done, if it is not said yet; ``value`` is what the journals of all ranks agree on."""
        if not self.ended:
            self.append({END: value})


@contextmanager
def open_journal(path: Path, settings: dict[str, Any]) -> Iterator[Journal]:
    """The journal at ``path``, begun if there is none; missing folders are made.

    Raises ``ConfigError`` where it was begun with other settings, or another process writes it, and ``StorageError``
    where the system refuses.
    """
    import fcntl

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = open(path, "a+b")  # noqa: SIM115  # closed below
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process is writing {printable(path)}; wait for it") from None
        stream.seek(0)
        begun = _parse(stream.readline())
        if begun is None:
            stream.truncate(0)
            Journal(path=path, stream=stream).append(settings)
        elif begun != settings:
            raise ConfigError(f"{printable(path)} was begun with {_difference(begun, settings)}{_remedy(path)}")
        yield Journal(path=path, stream=stream)


def merged(paths: list[Path], settings: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """The batches of the journals of all ranks in order, r, r + ranks, … being those of rank r; each is waited for.

    Raises ``ConfigError`` where they are not of one work.
    """
    for path in paths:
        while not _has_ended(path):
            sleep(WAIT)
    streams = [path.open("rb") for path in paths]
    try:
        begun = [_parse(stream.readline()) for stream in streams]
        if begun != settings:
            raise ConfigError(f"{printable(paths[0])} and its other parts differ in settings{_remedy(paths[0])}")
        turns = cycle(streams)
        while isinstance(value := _parse(next(turns).readline()), list):
            yield value
        # Behind the last batch each has its end.
        ends = [value, *(_parse(stream.readline()) for stream in islice(turns, len(streams) - 1))]
        if any(end != ends[0] for end in ends):
            raise ConfigError(f"{printable(paths[0])} and its other parts differ in files{_remedy(paths[0])}")
    finally:
        for stream in streams:
            stream.close()


def _line(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _parse(line: bytes) -> Any:
    """What a line holds; None for one that is torn or damaged."""
    try:
        return json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None


def _has_ended(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 4096))
            last = stream.read().splitlines(keepends=True)[-1:]
    except FileNotFoundError:
        return False
    value = _parse(last[0]) if last else None
    return isinstance(value, dict) and END in value


def _difference(begun: Any, settings: dict[str, Any]) -> str:
    if not isinstance(begun, dict):
        return "something else"
    names = [name for name in settings | begun if begun.get(name) != settings.get(name)]
    shown = (f"{name} {printable(begun.get(name))}, not {printable(settings.get(name))}" for name in names)
    return "; ".join(shown)


def _remedy(path: Path) -> str:
    return f"; run it as it was begun, or remove {printable(path)}* to start again"

"""Files that may be anything: opened if they are files, and named so that a message stays on its line."""

import os
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

MOST_BYTES = 1 << 29


def open_file(path: Path) -> BinaryIO:
    """A regular file, open for reading. Nothing else is waited for or read: a pipe would never end."""
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115
    status = os.fstat(stream.fileno())
    if not S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
        stream.close()
        raise ValueError(f"it has more than {MOST_BYTES:,} bytes" if S_ISREG(status.st_mode) else "it is no file")
    return stream


def read_file(path: Path) -> bytes:
    """The content of a regular file of at most ``MOST_BYTES``."""
    with open_file(path) as stream:
        return stream.read(MOST_BYTES)


def shown(text: str | Path) -> str:
    """``text`` for a message: what cannot be printed, such as a line break or a stray byte, is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))

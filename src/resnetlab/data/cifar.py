"""CIFAR-10 and CIFAR-100 as their author publishes them, in the binary and in the Python version.

A row of the binary version is the label (CIFAR-100: coarse, then fine) and 3072 bytes: 32×32 of red, of green, of blue.
The Python version pickles the same rows. Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnetlab.core.errors import DataError, do_all
from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.unpickle import unpickle_arrays

CHANNELS, SIDE = 3, 32
PIXELS = CHANNELS * SIDE * SIDE
MOST_BYTES = 1 << 30
ROWS = {"train": 50_000, "test": 10_000}

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class _Version:
    """How one version of one set is laid out; ``label`` and ``names`` are keys of its pickles, if it has any."""

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    label_bytes: int = 0
    label: str = ""
    names: str = ""


_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))

VERSIONS = {
    10: (
        _Version(
            folder="cifar-10-batches-bin",
            train=tuple(f"{name}.bin" for name in _TEN),
            test="test_batch.bin",
            meta="batches.meta.txt",
            label_bytes=1,
        ),
        _Version(
            folder="cifar-10-batches-py",
            train=_TEN,
            test="test_batch",
            meta="batches.meta",
            label="labels",
            names="label_names",
        ),
    ),
    100: (
        _Version(
            folder="cifar-100-binary",
            train=("train.bin",),
            test="test.bin",
            meta="fine_label_names.txt",
            label_bytes=2,
        ),
        _Version(
            folder="cifar-100-python",
            train=("train",),
            test="test",
            meta="meta",
            label="fine_labels",
            names="fine_label_names",
        ),
    ),
}


def read_cifar(folder: Path, classes: int) -> ImageData:
    """CIFAR-``classes`` (10, or 100 with the fine labels) from the folder of its files or the folder around that.

    Where both versions lie there, the binary one is read. Raises ``DataError`` for files that are missing or damaged.
    """
    place, version = _find(folder, classes)
    read = _read_pickled if version.label else _read_binary
    files = (*version.train, version.test)
    steps: list[Callable[[], Any]] = [partial(_read_names, place, version)]
    steps += [partial(read, place / name, version) for name in files]
    names, *parts = do_all(steps)
    splits = {
        name: _as_split(place, some, version, len(names))
        for name, some in (("train", parts[:-1]), ("test", parts[-1:]))
    }
    return ImageData(
        source=f"cifar{classes}:{folder}",
        train=splits["train"],
        test=splits["test"],
        classes=names,
        notes=tuple(
            f"{len(split):,} {name} images, where CIFAR-{classes} has {ROWS[name]:,}"
            for name, split in splits.items()
            if len(split) != ROWS[name]
        ),
    )


def _find(folder: Path, classes: int) -> tuple[Path, _Version]:
    """The version whose first training file is there, in ``folder`` or in the folder of its usual name below."""
    for version in VERSIONS[classes]:
        for place in (folder, folder / version.folder):
            if (place / version.train[0]).is_file():
                return place, version
    first = " or ".join(version.train[0] for version in VERSIONS[classes])
    usual = " or ".join(version.folder for version in VERSIONS[classes])
    raise DataError(f"{folder} holds no CIFAR-{classes}: give the folder of {first}, or the one around {usual}")


def _read_names(place: Path, version: _Version) -> tuple[str, ...]:
    content = _read(place / version.meta)
    lines: list[bytes | str]
    if version.names:
        found = unpickle_arrays(content, str(place / version.meta)).get(version.names)
        lines = [line for line in found if isinstance(line, bytes | str)] if isinstance(found, list) else []
    else:
        lines = list(content.split(b"\n"))
    texts = [line.decode(errors="replace") if isinstance(line, bytes) else line for line in lines]
    names = tuple(text.strip() for text in texts if text.strip())
    if not 2 <= len(names) <= 256:
        raise DataError(f"{place / version.meta} names {len(names)} classes; fetch it again")
    return names


def _as_split(place: Path, parts: Sequence[tuple[Array, Array]], version: _Version, classes: int) -> Split:
    pixels = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{place}: a label is {labels.max()}, but {version.meta} names {classes} classes")
    images = pixels.reshape(-1, CHANNELS, SIDE, SIDE)
    return Split(images=torch.from_numpy(images), labels=torch.from_numpy(labels))


def _read_binary(path: Path, version: _Version) -> tuple[Array, Array]:
    """Pixels ``(N, 3072)`` as uint8 and labels ``(N,)`` as int64: the last of a row's label bytes is the fine one."""
    content, width = _read(path), version.label_bytes + PIXELS
    if len(content) % width or not content:
        raise DataError(
            f"{path} has {len(content)} bytes, which is no multiple of the {width} of a row; fetch it again"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, width)
    return rows[:, version.label_bytes :], rows[:, version.label_bytes - 1].astype(np.int64)


def _read_pickled(path: Path, version: _Version) -> tuple[Array, Array]:
    """The same from a pickled dictionary of ``data`` and labels."""
    found = unpickle_arrays(_read(path), str(path))
    pixels, labels = found.get("data"), found.get(version.label)
    listed = isinstance(labels, list) and all(type(label) is int and 0 <= label < 256 for label in labels)
    if listed and labels and isinstance(pixels, np.ndarray) and pixels.shape == (len(labels), PIXELS):
        return pixels, np.array(labels, dtype=np.int64)
    raise DataError(f"{path} is not CIFAR: it must hold 'data' of n×{PIXELS} bytes and n numbers as {version.label!r}")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path.parent} has no file {path.name}; fetch the set again")
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path} has {path.stat().st_size} bytes; at most {MOST_BYTES} are read, and CIFAR has fewer")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error

"""IDX files, the format of MNIST and Fashion-MNIST, gzipped or not.

An IDX file is a magic number (two zero bytes, the type, the number of dimensions), each dimension as a big-endian
uint32, then the values. Source: http://yann.lecun.com/exdb/mnist, "the IDX file format".
"""

import gzip
import struct
import zlib
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from resnetlab.core.errors import DataError, do_all
from resnetlab.core.files import check_unpacked, read_exactly
from resnetlab.data.classes import NAMES, read_names
from resnetlab.data.dataset import ImageData, Split

UNSIGNED_BYTE = 0x08
FILES = {"train": "train", "test": "t10k"}
LABEL_BYTES = 8
"""Of a label in memory."""


def read_idx_folder(folder: Path) -> ImageData:
    """The four files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte`` of a folder, each with or without ``.gz``, also
    written ``train-images.idx3-ubyte``.

    The format has no names of classes; they come from ``classes.txt`` beside the files, one a line from label 0 on, and
    are the labels themselves where there is none.

    Raises ``DataError`` for a file that is missing or damaged, or whose counts contradict another's.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the one that holds {FILES['train']}-images-idx3-ubyte[.gz]")
    read = do_all(partial(_read_split, folder, prefix) for prefix in FILES.values())
    splits = dict(zip(FILES, read, strict=True))
    if splits["train"].images.shape[1:] != splits["test"].images.shape[1:]:
        raise DataError(f"{folder}: training and test images differ in size")
    count = int(max(split.labels.max() for split in splits.values())) + 1
    return ImageData(
        source=f"idx:{folder}",
        train=splits["train"],
        test=splits["test"],
        classes=read_names(folder / NAMES, count),
    )


def read_idx(path: Path, dimensions: int) -> Tensor:
    """The unsigned bytes of one IDX file. No more is read than its header announces.

    Raises ``DataError`` for another type or number of dimensions, and for a file shorter or longer than it says.
    """
    try:
        with _unzipped(path) as stream:
            return _read_values(stream, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); fetch it again") from error


def _unzipped(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _read_values(stream: BinaryIO, path: Path, dimensions: int) -> Tensor:
    header = stream.read(4 + 4 * dimensions)
    if header[:4] != bytes([0, 0, UNSIGNED_BYTE, dimensions]) or len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path} is not an IDX file of unsigned bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    size = prod(shape)
    check_unpacked(size * LABEL_BYTES if dimensions == 1 else size, path.stat().st_size, path)
    values = read_exactly(stream, size)
    if values is None:
        raise DataError(f"{path} is not the {'×'.join(map(str, shape))} values that its header announces")
    return torch.from_numpy(np.frombuffer(values, dtype=np.uint8).reshape(shape))


def _read_split(folder: Path, prefix: str) -> Split:
    images, labels = do_all(
        partial(_read_file, folder, f"{prefix}-{what}", dimensions)
        for what, dimensions in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1))
    )
    if len(images) != len(labels) or images.numel() == 0:
        size = "×".join(map(str, images.shape))
        raise DataError(f"{folder}: {size} {prefix} images but {len(labels)} labels")
    if images.shape[1] != images.shape[2]:
        raise DataError(f"{folder}: images of {images.shape[1]}×{images.shape[2]} are not square")
    return Split(images=images.unsqueeze(1), labels=labels.to(torch.int64))


def open_file(folder: Path, name: str) -> BinaryIO:
    """The file of that name, ``train-labels-idx1``, unzipped. Raises ``DataError`` where the folder has none."""
    return _unzipped(_find_file(folder, f"{name}-ubyte"))


def _read_file(folder: Path, name: str, dimensions: int) -> Tensor:
    return read_idx(_find_file(folder, name), dimensions)


def _find_file(folder: Path, name: str) -> Path:
    # Unzipped by some tools the name has a dot, and on Kaggle a folder of its own name around it.
    names = [f"{form}{end}" for form in (name, name.replace("-idx", ".idx")) for end in (".gz", "")]
    for path in [place / each for each in names for place in (folder, folder / each)]:
        if path.is_file():
            return path
    raise DataError(f"{folder} has no file {name} or {name}.gz")

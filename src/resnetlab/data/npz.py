"""Arrays of images and labels in one ``.npz`` file: a zip of ``.npy`` files, each a header and its values.

Headers are read before values, and no more is unpacked than a header announces: neither a lying header nor a zip that
unpacks to fill the memory takes any. Nothing is unpickled. Source: numpy.lib.format.
"""

import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from resnetlab.core.errors import DataError
from resnetlab.core.files import check_unpacked, read_exactly
from resnetlab.data.dataset import ImageData, Split, SplitName, split_by_class

MOST_CLASSES = 100_000
CHANNELS = (1, 3, 4)

PARTS: tuple[dict[SplitName, tuple[str, str]], ...] = (
    {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")},
    {
        "train": ("train_images", "train_labels"),
        "validation": ("val_images", "val_labels"),
        "test": ("test_images", "test_labels"),
    },
)
"""Images and labels of each split; of validation and test a set may lack one."""
WHOLE = (("images", "labels"), ("x", "y"))

Array = np.ndarray[Any, np.dtype[Any]]


def read_npz(path: Path, split_seed: int) -> ImageData:
    """Images ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)`` of uint8, and integer labels ``(N,)`` or ``(N, 1)``.

    The arrays are named as in ``PARTS``, or as in ``WHOLE`` for a set that is split here by ``split_seed``. An image
    of 3×3×3 is taken as (H, W, C). Raises ``DataError`` for what is missing, damaged or of another type.
    """
    if not path.is_file():
        raise DataError(f"{path} is not a file; give an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path, split_seed)
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy's header reader answer damage with a dozen kinds of error
        raise DataError(f"{path} cannot be read as .npz ({str(error) or type(error).__name__})") from error


def _read_archive(archive: zipfile.ZipFile, path: Path, split_seed: int) -> ImageData:
    stored, notes = {name.removesuffix(".npy") for name in archive.namelist()}, []
    if sum(entry.compress_size for entry in archive.infolist()) > path.stat().st_size:
        raise DataError(f"{path} is damaged: its arrays lie over each other; store it again with np.savez")
    for parts in PARTS:
        here = {split: names for split, names in parts.items() if names[0] in stored}
        if "train" in here and len(here) > 1:
            splits = {split: _read_split(archive, path, *names) for split, names in here.items()}
            break
    else:
        splits = _read_whole(archive, path, stored, split_seed)
        notes.append(f"split by split_seed={split_seed}: a fifth of every class is the test")
    shapes = {split: images.shape for split, images in splits.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{split} images are {shape}" for split, shape in shapes.items())
        raise DataError(f"{path}: {listed} (C, H, W); all must have one shape")
    count = int(max(images.labels.max() for images in splits.values())) + 1
    return ImageData(
        source=f"npz:{path}",
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits.get("test"),
        classes=tuple(str(number) for number in range(count)),
        notes=tuple(notes),
    )


def _read_whole(archive: zipfile.ZipFile, path: Path, stored: set[str], split_seed: int) -> dict[SplitName, Split]:
    for names in WHOLE:
        if stored.issuperset(names):
            whole = _read_split(archive, path, *names)
            _, test = split_by_class(whole.labels.numpy(), split_seed)
            if not test:
                raise DataError(f"{path}: every class has one image; a split needs two")
            return dict(zip(("train", "test"), whole.divide(torch.tensor(test)), strict=True))
    sets = [[*parts["train"], *parts["test"]] for parts in PARTS]
    allowed = "; or ".join(", ".join(names) for names in (*sets, *WHOLE))
    raise DataError(f"{path} holds {', '.join(sorted(stored)[:12]) or 'no arrays'}; it must hold {allowed}")


def _read_split(archive: zipfile.ZipFile, path: Path, images: str, labels: str) -> Split:
    pixels = _as_images(_read_array(archive, path, images, _require_bytes), f"{path}: {images}")
    numbers = _as_labels(_read_array(archive, path, labels, _require_integers), f"{path}: {labels}")
    if len(pixels) != len(numbers) or not len(numbers):
        raise DataError(f"{path}: {len(pixels)} images in {images} but {len(numbers)} labels in {labels}")
    return Split(images=pixels, labels=numbers)


def _read_array(
    archive: zipfile.ZipFile, path: Path, name: str, check: Callable[["np.dtype[Any]", str], None]
) -> Array:
    """The values, once ``check`` let the header's type pass."""
    with archive.open(f"{name}.npy") as stream:
        shape, turned, kind = _read_header(stream)
        check(kind, f"{path}: {name}")
        if any(length < 0 for length in shape):
            raise DataError(f"{path}: {name} announces the shape {shape}")
        size = prod(shape) * kind.itemsize
        check_unpacked(size, archive.getinfo(f"{name}.npy").compress_size, f"{path}: {name}")
        content = read_exactly(stream, size)
    if content is None:
        raise DataError(f"{path}: {name} is not the {'×'.join(map(str, shape))} values that its header announces")
    return np.frombuffer(content, dtype=kind).reshape(shape, order="F" if turned else "C")


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"an array of version {version}")


def _require_bytes(kind: "np.dtype[Any]", name: str) -> None:
    if kind != np.uint8:
        raise DataError(
            f"{name} is {kind}; images are uint8, 0 to 255: store np.round(255 * x).astype('uint8') of values in [0, 1]"
        )


def _require_integers(kind: "np.dtype[Any]", name: str) -> None:
    if kind.kind not in "iu":
        raise DataError(f"{name} is {kind}; labels are integers, one an image")


def _as_images(array: Array, name: str) -> Tensor:
    """``(N, C, H, W)``, contiguous."""
    shape = array.shape[1:]
    if len(shape) == 2:
        array = array[:, None]
    elif len(shape) == 3 and shape[0] == shape[1] and shape[2] in CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    elif not (len(shape) == 3 and shape[0] in CHANNELS):
        raise DataError(f"{name} has the shape {array.shape}; it must be (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if array.shape[2] != array.shape[3] or not array.size:
        raise DataError(f"{name} has the shape {array.shape} (N, C, H, W); images must be square")
    return torch.from_numpy(np.ascontiguousarray(array))


def _as_labels(array: Array, name: str) -> Tensor:
    """``(N,)`` as int64."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{name} has the shape {array.shape}; labels are integers, one an image")
    if array.size and not 0 <= array.min() <= array.max() < MOST_CLASSES:
        raise DataError(
            f"{name} goes from {array.min()} to {array.max()}; labels are 0 up to the number of classes - 1"
        )
    return torch.from_numpy(array.astype(np.int64))

"""Arrays of images and labels in one ``.npz`` file: a zip of ``.npy`` files, each a header and its values.

Headers are read before values, and no more is unpacked than a header announces: neither a lying header nor a zip that
unpacks to fill the memory takes any. Nothing is unpickled. Source: numpy.lib.format.

Images become uint8. What other numbers mean, their range over all splits says where it can (``_measure``), or the user:
``npz:FILE#scale=BLACK..WHITE``.
"""

import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from math import isfinite, prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from resnetlab.core.errors import ConfigError, DataError, do_all
from resnetlab.core.files import check_unpacked, read_exactly
from resnetlab.data.classes import MISSING, Refuse, raise_it, without_unlabelled
from resnetlab.data.config import SCALE
from resnetlab.data.dataset import ImageData, Images, Numbers, Split, SplitName, split_by_class
from resnetlab.data.mapped import MappedSplit, map_array

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
Scale = tuple[float, float]
"""The values that are black and white."""
CLASSES = "classes"
"""An array of texts that names the classes."""
MOST_HELD = 1 << 30
"""Bytes of images that are read into memory; of more, if they are uint8 and not compressed, the file is mapped."""
ROWS = 1 << 22
"""Values that are converted at a time, so that an array is not held twice."""


def read_npz(place: str, split_seed: int, refuse: Refuse = raise_it) -> ImageData:
    """Images ``(N, H, W)``, ``(N, H, W, C)`` or ``(N, C, H, W)``, and integer labels ``(N,)`` or ``(N, 1)``.

    The arrays are named as in ``PARTS``, or as in ``WHOLE`` for a set that is split here by ``split_seed``. Images of
    uint8 are taken as they are; other numbers by their range, or by ``FILE#scale=BLACK..WHITE``. An image of 3×3×3 is
    taken as (H, W, C). Raises ``DataError`` for what is missing, damaged or not understood, ``ConfigError`` for a scale
    that is none.
    """
    where, scale = (place, None) if Path(place).is_file() else _parse(place)
    path = Path(where)
    if not path.is_file():
        raise DataError(f"{path} is not a file; give an .npz file")
    try:
        with zipfile.ZipFile(path) as archive:
            return _Reader(archive, path, place, scale).read(split_seed, refuse)
    except DataError:
        raise
    except Exception as error:  # zipfile answers damage with several kinds of error
        raise DataError(f"{path} cannot be read as .npz ({str(error) or type(error).__name__})") from error


def _parse(place: str) -> tuple[str, Scale | None]:
    where, mark, text = place.partition(SCALE)
    if not mark:
        return where, None
    low, dots, high = text.partition("..")
    try:
        scale = (float(low), float(high)) if dots else (0.0, float(low))
    except ValueError:
        scale = (0.0, 0.0)
    if not all(map(isfinite, scale)) or scale[0] == scale[1]:
        raise ConfigError(f"{SCALE}{text} is not possible: write {SCALE}BLACK..WHITE, two numbers, such as {SCALE}0..1")
    return where, scale


class _Reader:
    """One file: the arrays of its splits, and what was made of their numbers."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, place: str, scale: Scale | None) -> None:
        self.archive, self.path, self.place, self.scale = archive, path, place, scale
        self.stored = {name.removesuffix(".npy") for name in archive.namelist()}
        self.notes: list[str] = []

    def read(self, split_seed: int, refuse: Refuse) -> ImageData:
        if sum(entry.compress_size for entry in self.archive.infolist()) > self.path.stat().st_size:
            raise DataError(f"{self.path} is damaged: its arrays lie over each other; store it again with np.savez")
        named = self._named()
        arrays, labels = self._arrays(named)
        labels, unlabelled = without_unlabelled(
            labels, f"npz:{self.place}", {split: names[1] for split, names in named.items()}, refuse
        )
        for split, numbers in labels.items():
            arrays[split] = arrays[split][numbers != MISSING] if (numbers == MISSING).any() else arrays[split]
            labels[split] = numbers[numbers != MISSING]
        self._check_shapes({named[split][0]: arrays[split] for split in labels})
        pixels = self._as_bytes({split: arrays[split] for split in labels})
        splits = {split: _split(pixels[split], torch.from_numpy(labels[split])) for split in labels}
        self.notes += unlabelled
        if len(splits) == 1:
            splits = self._divide(splits["train"], split_seed)
        count = max(int(split.labels.max()) for split in splits.values()) + 1
        return ImageData(
            source=f"npz:{self.place}",
            train=splits["train"],
            validation=splits.get("validation"),
            test=splits.get("test"),
            classes=self._classes(count),
            notes=tuple(self.notes),
        )

    def _named(self) -> dict[SplitName, tuple[str, str]]:
        """Names of images and labels of each split; of a whole set it is ``train`` alone."""
        for parts in PARTS:
            here = {split: names for split, names in parts.items() if names[0] in self.stored}
            if "train" in here and len(here) > 1:
                return here
        for names in WHOLE:
            if self.stored.issuperset(names):
                return {"train": names}
        sets = [[*parts["train"], *parts["test"]] for parts in PARTS]
        allowed = "; or ".join(", ".join(names) for names in (*sets, *WHOLE))
        found = ", ".join(sorted(self.stored)[:12]) or "no arrays"
        raise DataError(f"{self.path} holds {found}; it must hold {allowed}")

    def _arrays(
        self, named: dict[SplitName, tuple[str, str]]
    ) -> tuple[dict[SplitName, Array], dict[SplitName, Numbers]]:
        """Images and labels of each split. Raises ``DataError`` with all that is wrong with them."""
        pixels = [partial(self._pixels, images) for images, _ in named.values()]
        numbers = [partial(self._labels, labels) for _, labels in named.values()]
        read = do_all([*pixels, *numbers])
        arrays = dict(zip(named, read, strict=False))
        labels = dict(zip(named, read[len(named) :], strict=True))
        do_all(
            partial(self._check_counts, names, len(arrays[split]), len(labels[split])) for split, names in named.items()
        )
        return arrays, labels

    def _classes(self, count: int) -> tuple[str, ...]:
        """The texts in the array ``classes``, where there are as many; else the numbers."""
        if CLASSES in self.stored:
            names = _read_array(self.archive, self.path, CLASSES, lambda *_: None)
            if names.dtype.kind == "U" and names.ndim == 1 and len(names) >= count:
                return tuple(map(str, names))
        return tuple(str(number) for number in range(count))

    def _divide(self, whole: Images, split_seed: int) -> dict[SplitName, Images]:
        _, test = split_by_class(whole.labels.numpy(), split_seed)
        if not len(test):
            raise DataError(f"{self.path}: every class has one image; a split needs two")
        self.notes.append(f"split by split_seed={split_seed}: a fifth of every class is the test")
        return dict(zip(("train", "test"), whole.divide(torch.from_numpy(test)), strict=True))

    def _pixels(self, name: str) -> Array:
        array = _read_array(self.archive, self.path, name, _require_numbers)
        if reason := _shape_fault(array.shape):
            raise DataError(f"{self.path}: {name} has the shape {array.shape}: {reason}")
        if array.ndim == 4 and array.shape[1] == array.shape[2] == array.shape[3] > 1:
            self.notes.append(f"{name} {array.shape} is taken as (N, H, W, C)")
        return array[:, None] if array.ndim == 3 else array

    def _labels(self, name: str) -> Numbers:
        return _as_labels(_read_array(self.archive, self.path, name, _require_integers), f"{self.path}: {name}")

    def _check_counts(self, names: tuple[str, str], images: int, labels: int) -> None:
        if images != labels:
            raise DataError(f"{self.path}: {images} images in {names[0]} but {labels} labels in {names[1]}")

    def _check_shapes(self, arrays: dict[str, Array]) -> None:
        """Raise ``DataError`` for splits whose images differ in shape."""
        shapes = {name: _channels_first(array).shape[1:] for name, array in arrays.items()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} images are {shape}" for name, shape in shapes.items())
            raise DataError(f"{self.path}: {listed} (C, H, W); all must have one shape")

    def _as_bytes(self, arrays: dict[SplitName, Array]) -> dict[SplitName, Array]:
        """All splits as uint8 ``(N, C, H, W)``, by one scale."""
        kinds = {str(array.dtype) for array in arrays.values()}
        scale = self.scale
        if scale is None and kinds != {"uint8"}:
            scale = self._measure(arrays, " and ".join(sorted(kinds)))
        elif scale is not None:
            low, high = _range(arrays)
            if not min(scale) <= low <= high <= max(scale):
                raise DataError(
                    f"{self.path}: images go from {low:g} to {high:g}, beyond {SCALE}{scale[0]:g}..{scale[1]:g}; name "
                    "the values of black and white that they lie between"
                )
            self.notes.append(f"images are numbers in which {scale[0]:g} is black and {scale[1]:g} white, as given")
        return {split: _scaled(_channels_first(array), scale) for split, array in arrays.items()}

    def _measure(self, arrays: dict[SplitName, Array], kinds: str) -> Scale:
        """The scale of numbers that are not uint8, by their range over all splits: whole numbers from 0 to 255 are
        taken as they are, and numbers from 0 to 1, of which some are above a half, with 1 as white.

        Raises ``DataError`` for others, which is asked for.
        """
        low, high = _range(arrays)
        whole = all(_is_whole(array) for array in arrays.values())
        floats = any(array.dtype.kind in "fb" for array in arrays.values())
        if not (isfinite(low) and isfinite(high)):
            raise DataError(f"{self.path}: images hold values that are no finite numbers; every pixel must be one")
        if low >= 0 and 0.5 < high <= 1 and floats:
            self.notes.append(f"images are {kinds} from {low:g} to {high:g}: 0 is black and 1 white")
            return 0.0, 1.0
        if 0 <= low <= high <= 255 and whole:
            self.notes.append(f"images are {kinds}, whole numbers from {low:g} to {high:g}: 0 is black and 255 white")
            return 0.0, 255.0
        if " and " in kinds:
            raise DataError(
                f"{self.path}: images are {kinds}, from {low:g} to {high:g} together; store those of all splits as one "
                "type, with one value for white"
            )
        raise DataError(
            f"{self.path}: images are {kinds} from {low:g} to {high:g}, which does not say what is black and what "
            f"white; name both: npz:{self.path}{SCALE}{_likely(low, high)}, for example. Images that were standardised "
            "have lost these values: store the images before that"
        )


def _likely(low: float, high: float) -> str:
    """A scale in which the values would fit, to show how one is written."""
    black, white = ("-1" if low >= -1 and high <= 1 else f"{low:g}") if low < 0 else "0", "1"
    if high > 1:
        white = next((f"{most}" for most in (255, 1023, 4095, 65535) if high <= most), f"{high:g}")
    return f"{black}..{white}"


def _range(arrays: dict[SplitName, Array]) -> Scale:
    """The least and the greatest value of all; NaN where one is."""
    lows, highs = zip(*((array.min(), array.max()) for array in arrays.values()), strict=True)
    return float(np.min(lows)), float(np.max(highs))


def _is_whole(array: Array) -> bool:
    """Whether all values are whole numbers."""
    if array.dtype.kind != "f":
        return True
    return all(bool((part == np.rint(part)).all()) for part in _chunks(array))


def _chunks(array: Array) -> Iterator[Array]:
    """The array in parts along its first axis, of about ``ROWS`` values each."""
    step = max(1, ROWS // max(1, prod(array.shape[1:])))
    return (array[start : start + step] for start in range(0, len(array), step))


def _split(pixels: Array, labels: Tensor) -> Images:
    if isinstance(pixels, np.memmap):
        return MappedSplit(array=pixels, numbers=np.arange(len(labels)), labels=labels, shape=pixels.shape[1:])
    return Split(images=torch.from_numpy(pixels), labels=labels)


def _scaled(array: Array, scale: Scale | None) -> Array:
    """uint8, contiguous: 255·(x - black)/(white - black), rounded."""
    if scale is None:
        return array if isinstance(array, np.memmap) else np.ascontiguousarray(array)
    black, white = scale
    pixels = np.empty(array.shape, np.uint8)
    at = 0
    for part in _chunks(array):
        pixels[at : at + len(part)] = np.rint((part.astype(np.float64) - black) * (255 / (white - black)))
        at += len(part)
    return pixels


def _shape_fault(shape: tuple[int, ...]) -> str:
    """Why images of that shape cannot be taken, and what to do; nothing where they can. The first axis is N."""
    allowed = "it must be (N, H, W), (N, H, W, C) or (N, C, H, W)"
    if len(shape) == 2:
        return _flat_fault(shape[1])
    if len(shape) not in (3, 4):
        return allowed
    if 0 in shape:
        return "it holds no pixels"
    if len(shape) == 3:
        return "" if shape[1] == shape[2] else f"images of {shape[1]}×{shape[2]} pixels; {_advice(*shape[1:])}"
    count, one, two, three = shape
    first, last = one in CHANNELS, three in CHANNELS
    if (first and two == three) or (last and one == two):
        return ""
    if count == one and two in CHANNELS:
        return "images seem to lie along the last axis, (H, W, C, N); store np.moveaxis(images, -1, 0)"
    if first and last:
        return f"neither {one}×{two} nor {two}×{three} pixels are square; {_advice(max(one, three), two)}"
    if last:
        return f"images of {one}×{two} pixels, {three} channels last; {_advice(one, two)}"
    if first:
        return f"images of {two}×{three} pixels, {one} channels first; {_advice(two, three)}"
    if one == two or two == three:
        return f"{three if one == two else one} channels; 1, 3 or 4 are read: store those that are to be seen"
    return f"{allowed}, with 1, 3 or 4 channels"


def _flat_fault(length: int) -> str:
    for channels in (3, 1):
        side = round((length / channels) ** 0.5)
        if side * side * channels == length and side > 1:
            if channels == 1:
                return f"each image is a row; reshape it to (N, {side}, {side})"
            return (
                f"each image is a row; reshape it to (N, 3, {side}, {side}) where it holds a plane for each colour, "
                f"to (N, {side}, {side}, 3) where it holds a pixel after the other"
            )
    return "each image is a row; reshape it to (N, H, W), (N, H, W, C) or (N, C, H, W)"


def _advice(height: int, width: int) -> str:
    return (
        f"images must be square: pad them to {max(height, width)}×{max(height, width)} or cut them to "
        f"{min(height, width)}×{min(height, width)} yourself, or give the files as a folder, where they are cut"
    )


def _read_array(
    archive: zipfile.ZipFile, path: Path, name: str, check: Callable[["np.dtype[Any]", str], None]
) -> Array:
    """The values, once ``check`` let the header's type pass."""
    try:
        return _unpack_array(archive, path, name, check)
    except DataError:
        raise
    except Exception as error:  # zipfile and numpy's header reader answer damage with a dozen kinds of error
        raise DataError(f"{path}: {name} cannot be read ({str(error) or type(error).__name__})") from error


def _unpack_array(
    archive: zipfile.ZipFile, path: Path, name: str, check: Callable[["np.dtype[Any]", str], None]
) -> Array:
    with archive.open(f"{name}.npy") as stream:
        shape, turned, kind = read_header(stream)
        check(kind, f"{path}: {name}")
        if any(length < 0 for length in shape):
            raise DataError(f"{path}: {name} announces the shape {shape}")
        size = prod(shape) * kind.itemsize
        entry = archive.getinfo(f"{name}.npy")
        stored = entry.compress_type == zipfile.ZIP_STORED and stream.tell() + size == entry.file_size
        if size > MOST_HELD and stored and kind == np.uint8 and len(shape) == 4 and not turned:
            return map_array(path, entry, stream.tell(), shape)
        check_unpacked(size, entry.compress_size, f"{path}: {name}")
        content = read_exactly(stream, size)
    if content is None:
        raise DataError(f"{path}: {name} is not the {'×'.join(map(str, shape))} values that its header announces")
    return np.frombuffer(content, dtype=kind).reshape(shape, order="F" if turned else "C")


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, "np.dtype[Any]"]:
    """Shape, whether the order is Fortran's, and type of a stored array."""
    version = npy.read_magic(stream)
    if version == (1, 0):
        return npy.read_array_header_1_0(stream)
    if version == (2, 0):
        return npy.read_array_header_2_0(stream)
    raise ValueError(f"an array of version {version}")


def _require_numbers(kind: "np.dtype[Any]", name: str) -> None:
    if kind.kind not in "uifb":
        raise DataError(f"{name} is {kind}; images are numbers, such as uint8 from 0 to 255")


def _require_integers(kind: "np.dtype[Any]", name: str) -> None:
    if kind.kind not in "iu":
        raise DataError(f"{name} is {kind}; labels are integers, one an image")


def _channels_first(array: Array) -> Array:
    """``(N, C, H, W)``; where both are possible, channels are last."""
    _, one, two, three = array.shape
    last = one == two and three in CHANNELS
    return array.transpose(0, 3, 1, 2) if last else array


def _as_labels(array: Array, name: str) -> Numbers:
    """``(N,)`` as int64, ``MISSING`` for none."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = ""
        if array.ndim == 2 and array.size and ((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all():
            hint = "; these have a column for each class: store labels.argmax(axis=1)"
        raise DataError(f"{name} has the shape {array.shape}; labels are integers, one an image{hint}")
    if array.size and not MISSING <= array.min() <= array.max() < MOST_CLASSES:
        raise DataError(
            f"{name} goes from {array.min()} to {array.max()}; labels are 0 up to the number of classes - 1"
        )
    return array.astype(np.int64)

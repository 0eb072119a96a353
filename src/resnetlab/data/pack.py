"""A set of image files written anew in a form that is read at speed: shards, or one file of arrays."""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import chain, count
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from numpy.lib import format as npy
from PIL import Image

from resnetlab.core.errors import ConfigError, DataError, printable
from resnetlab.core.files import atomic_stream, atomic_write, new_folder, require_vacant
from resnetlab.core.randomness import generator
from resnetlab.data.ahead import in_threads
from resnetlab.data.classes import NAMES
from resnetlab.data.dataset import ImageData, Images, Split, SplitName
from resnetlab.data.decode import read_image, reason
from resnetlab.data.encoded import EncodedSplit
from resnetlab.data.npz import CLASSES, PARTS

Form = Literal["shards", "arrays"]
MARGIN = 1.15
"""Short side of an image in shards, as a multiple of the side that it is trained at: room for random crops."""
QUALITY = 95
SHARD_BYTES = 256 << 20
AT_ONCE = 64
ENDINGS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "BMP": "bmp",
    "TIFF": "tif",
    "GIF": "gif",
    "PPM": "ppm",
}
"""Of formats whose files are taken over as they are."""

Progress = Callable[[int, int], None]


def pack(data: ImageData, form: Form, out: Path, workers: int = 0, on_progress: Progress | None = None) -> list[Path]:
    """Write ``data`` to ``out`` and return the files.

    ``shards`` is a folder of tar files of about 256 MiB, for ``shards:OUT``: JPEG of quality 95 whose short side is
    ``MARGIN`` times ``data.image_size``; files of smaller images are taken over as they are. ``arrays`` is a file
    .npz of uint8 ``(N, H, W, C)`` at ``data.image_size``, not compressed, for ``npz:OUT``.

    Raises ``ConfigError`` for data that are arrays already, and for a place that is taken; ``DataError`` for an image
    that cannot be read.
    """
    if any(not isinstance(images, EncodedSplit | Split) or images.store is None for images in data.splits.values()):
        raise ConfigError(f"{data.source} holds arrays and no image files, so there is nothing to gain by packing it")
    total = sum(map(len, data.splits.values()))

    def told(done: int) -> None:
        if on_progress:
            on_progress(done, total)

    if form == "arrays":
        if out.suffix != ".npz" or out.exists():
            raise ConfigError(
                f"--out {out} is not possible: arrays go to a new file, such as {out.with_suffix('.npz')}"
            )
        _write_arrays(data, out, told)
        return [out]
    require_vacant(out, "set of shards")
    done = count(1)
    with new_folder(out) as place:
        for split, images in data.splits.items():
            for _ in _write_shards(place, split, images, data.image_size, workers):
                told(next(done))
        atomic_write(place / NAMES, "".join(f"{name}\n" for name in data.classes))
    return sorted(out.iterdir())


def _write_shards(place: Path, split: SplitName, images: Images, side: int, workers: int) -> Iterator[None]:
    """Write the images of a split; yields once for each. They are mixed, so that a reader that goes through the shards
    in order meets all classes."""
    assert isinstance(images, EncodedSplit | Split)
    store, labels, least = images.store, images.labels.tolist(), round(MARGIN * side)
    assert store is not None

    def packed(number: int) -> tuple[int, bytes, str]:
        try:
            return number, *_packed(store[number], least)
        except Exception as error:  # a damaged image can fail in any way
            name = printable(images.names[number]) if images.names else f"image {number}"
            raise DataError(f"{name} cannot be read: {reason(error)}") from error

    order = generator(0, "pack", split).permutation(len(images)).tolist()
    files = in_threads(packed, order, workers)
    for shard in count():
        first = next(files, None)
        if first is None:
            return
        with tarfile.open(place / f"{split}-{shard:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, content, ending in chain([first], files):
                _add(archive, f"{number:08d}.{ending}", content)
                _add(archive, f"{number:08d}.cls", str(labels[number]).encode())
                # The library would keep them all.
                archive.members = []  # type: ignore[attr-defined]  # not in the stub
                yield
                if archive.offset > SHARD_BYTES:
                    break


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, BytesIO(content))


def _packed(cell: bytes | Path, least: int) -> tuple[bytes, str]:
    """The file of an image whose short side is at most ``least``, and its ending."""
    content = cell if isinstance(cell, bytes) else cell.read_bytes()
    image = read_image(content, None)
    short = min(image.width, image.height)
    if short <= least and image.format in ENDINGS:
        return content, ENDINGS[image.format]
    size = (round(image.width * least / short), round(image.height * least / short))
    pixels = Image.fromarray(image.pixels)
    stream = BytesIO()
    small = pixels.resize(size, Image.Resampling.BILINEAR) if short > least else pixels
    small.save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue(), "jpg"


def _write_arrays(data: ImageData, out: Path, told: Callable[[int], None]) -> None:
    done = 0
    with atomic_stream(out) as stream, zipfile.ZipFile(stream, "w") as archive:
        for split, images in data.splits.items():
            pixels, labels = PARTS[0][split]
            channels, height, width = images.shape
            with archive.open(f"{pixels}.npy", "w", force_zip64=True) as entry:
                _head(entry, (len(images), height, width, channels))
                for batch in images.batches(torch.split(torch.arange(len(images)), AT_ONCE)):
                    entry.write(batch.permute(0, 2, 3, 1).contiguous().numpy().data)
                    done += len(batch)
                    told(done)
            with archive.open(f"{labels}.npy", "w") as entry:
                npy.write_array(entry, images.labels.numpy(), allow_pickle=False)
        with archive.open(f"{CLASSES}.npy", "w") as entry:
            npy.write_array(entry, np.array(data.classes), allow_pickle=False)


def _head(entry: IO[bytes], shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(entry, {"descr": "|u1", "fortran_order": False, "shape": shape})

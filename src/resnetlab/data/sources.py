"""From the text of ``--data`` to images."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnetlab.core.errors import ConfigError, DataError, unknown_name
from resnetlab.data.config import SOURCES, DecodeConfig
from resnetlab.data.dataset import TEST_SHARE, ImageData, Split

if TYPE_CHECKING:
    from resnetlab.data.ingest import EncodedSet

Progress = Callable[[int, int], None]

PLACES = dict(name.split(":") for name in SOURCES if ":" in name)
ENCODED = ("folder", "parquet", "hub")
"""Schemes of encoded images, which can be read in any size; the others are arrays."""
AS_IT_IS = DecodeConfig()


def load_data(
    source: str, split_seed: int = 0, decode: DecodeConfig = AS_IT_IS, on_progress: Progress | None = None
) -> ImageData:
    """The data that ``source`` names: a row of ``SOURCES``, or the path of a folder of images.

    ``split_seed`` decides the split of a set that comes without one. ``on_progress`` is told how many of how many
    images were decoded.

    Raises ``ConfigError`` for an unknown source or a setting that it does not have, ``DataError`` for what cannot be
    read, ``MissingExtraError`` where the extra ``hub`` is needed and not there.
    """
    scheme, place = _parse(source)
    if decode.image_size is not None and scheme not in ENCODED:
        raise ConfigError(
            f"image_size={decode.image_size} is not possible for {source}: its images are arrays and are taken as "
            f"they are; image_size is for {', '.join(f'{name}:' for name in ENCODED)}"
        )
    data = _read(scheme, place, split_seed)
    if not isinstance(data, ImageData):
        from resnetlab.data.ingest import ingest

        data = ingest(data, decode, on_progress)
    if len(data.train) < 2 or len(data.classes) < 2 or not len(data.reported):
        raise DataError(
            f"{source} has {len(data.train)} training and {len(data.reported)} {data.reported_split} images of "
            f"{len(data.classes)} classes; a classifier needs at least two to train on, one to test and two classes: "
            "at least two of each"
        )
    return data


def _parse(source: str) -> tuple[str, str]:
    """The scheme and what stands behind it; the path of a folder is one of ``folder``."""
    scheme, colon, place = source.partition(":")
    if source == "digits":
        return source, ""
    if colon and scheme in PLACES:
        if not place:
            what = PLACES[scheme]
            raise ConfigError(f"--data {scheme}: names no {what.lower()}; write {scheme}:{what}")
        return scheme, place
    path = Path(source)
    if source and path.is_dir():
        return "folder", source
    if path.is_file():
        raise ConfigError(f"{source} is a file; write npz:FILE or parquet:DIR, or give a folder of images")
    if "/" in source and not colon:
        raise DataError(f"{source} does not exist; give a folder of images, or one of {', '.join(SOURCES)}")
    if colon:
        raise unknown_name("data source", f"{scheme}:", SOURCES)
    raise ConfigError(f"{unknown_name('data source', source, SOURCES)}; and there is no folder {source}")


def _read(scheme: str, place: str, split_seed: int) -> "ImageData | EncodedSet":
    # Each reader is imported where it is needed: none of them pays for another's packages.
    if scheme == "digits":
        return read_digits(split_seed)
    if scheme == "idx":
        from resnetlab.data.idx import read_idx_folder

        return read_idx_folder(Path(place))
    if scheme in ("cifar10", "cifar100"):
        from resnetlab.data.cifar import read_cifar

        return read_cifar(Path(place), int(scheme.removeprefix("cifar")))
    if scheme == "npz":
        from resnetlab.data.npz import read_npz

        return read_npz(Path(place), split_seed)
    if scheme == "folder":
        from resnetlab.data.folder import read_folder

        return read_folder(Path(place), split_seed)
    from resnetlab.data.hub import read_hub, read_parquet

    read = read_hub if scheme == "hub" else read_parquet
    return read(place, split_seed)


def read_digits(split_seed: int) -> ImageData:
    """8×8 images of 17 grey levels, split 1437 / 360, stratified by class; ``split_seed`` decides which go where.

    Source: UCI ML repository, Alpaydin & Kaynak 1998.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    indices = np.arange(len(digits.target))
    train, test = train_test_split(indices, test_size=TEST_SHARE, random_state=split_seed, stratify=digits.target)
    images = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return ImageData(
        source="digits",
        train=Split(images=images[train], labels=labels[train]),
        test=Split(images=images[test], labels=labels[test]),
        classes=tuple(str(digit) for digit in digits.target_names),
    )

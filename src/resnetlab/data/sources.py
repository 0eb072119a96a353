"""From the text of ``--data`` to images."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnetlab.core.errors import ConfigError, DataError, unknown_name
from resnetlab.data.classes import Refuse, compact_classes, judge_classes, raise_it
from resnetlab.data.config import SCALE, SOURCES, DecodeConfig
from resnetlab.data.dataset import TEST_SHARE, ImageData, Normalisation, Numbers, Split, SplitName
from resnetlab.data.splits import parse_choice

if TYPE_CHECKING:
    from resnetlab.data.opening import EncodedSet

Progress = Callable[[int, int], None]

PLACES = dict(name.split(":") for name in SOURCES if ":" in name)
ENCODED = ("folder", "parquet", "shards", "hub")
"""Schemes of encoded images, which can be read in any size; the others are arrays."""
AS_IT_IS = DecodeConfig()
BEHIND = re.compile(r"\[[^\[\]]*=[^\[\]]*\]|#")
"""Where the path in a source ends."""
PATTERN = re.compile(r"/[^/]*[*?{]")
"""Where the folder ends in a pattern of shards."""


def load_data(
    source: str | Path,
    split_seed: int = 0,
    decode: DecodeConfig = AS_IT_IS,
    on_progress: Progress | None = None,
    *,
    refuse: Refuse = raise_it,
    standard: Normalisation | None = None,
) -> ImageData:
    """The data that ``source`` names: a row of ``SOURCES``, or the path of a folder of images.

    ``split_seed`` decides the split of a set that comes without one. ``on_progress`` is told how many of how many
    images were decoded. ``refuse`` is told of every reason not to train on what was read; who only looks at the set may
    gather them. ``standard`` are the statistics to standardise images of three channels by, where not their own.

    Raises ``ConfigError`` for an unknown source or a setting that it does not have, ``DataError`` for what cannot be
    read, ``MissingExtraError`` where the extra ``hub`` is needed and not there.
    """
    source = str(source)
    scheme, place = _parse(source)
    if decode.image_size is not None and scheme not in ENCODED:
        raise ConfigError(
            f"image_size={decode.image_size} is not possible for {source}: its images are arrays and are taken as "
            f"they are; image_size is for {', '.join(f'{name}:' for name in ENCODED)}"
        )
    told: list[str] = []

    def tell(reason: str) -> None:
        told.append(reason)
        refuse(reason)

    read = _read(scheme, place, split_seed, tell)
    if isinstance(read, ImageData):
        data, folders = replace(read, white=_white(scheme, place, read)), False
        data = replace(data, standard=standard) if standard and data.in_chans == 3 else data
    else:
        data, folders = _ingest(read, decode, on_progress, tell, standard), read.folders
    if decode.compact_labels:
        data = compact_classes(data)
    labels = {name: split.labels.cpu().numpy() for name, split in data.splits.items()}
    # Those of encoded images were judged before these were opened.
    judge: Refuse = tell if isinstance(read, ImageData) else lambda _: None
    notes = judge_classes(data.classes, labels, source, judge, folders=folders)
    data = replace(data, notes=(*data.notes, *notes))
    if not told and (len(data.train) < 2 or len(data.classes) < 2 or not len(data.reported)):
        refuse(
            f"{source} has {len(data.train)} training and {len(data.reported)} {data.reported_split} images of "
            f"{len(data.classes)} classes; a classifier needs at least two to train on, one to test and two classes: "
            "at least two of each"
        )
    return data


def encoded_images(source: str, split_seed: int = 0) -> "EncodedSet | None":
    """The encoded images that ``source`` names, none of them opened; None for arrays. Raises as ``load_data`` does."""
    scheme, place = _parse(source)
    read = _read(scheme, place, split_seed, raise_it) if scheme in ENCODED else None
    return None if isinstance(read, ImageData) else read


def forget_index(source: str) -> None:
    """Remove what is kept of a folder of images, so that all its files are opened again; nothing for other sources."""
    scheme, place = _parse(source)
    if scheme == "folder":
        from resnetlab.data.folder import index_key
        from resnetlab.data.index import forget

        forget(index_key(place))


def _white(scheme: str, place: str, data: ImageData) -> int | None:
    """The value of white: that of the reader, but None for arrays that use the lower half of 0 … 255 alone and do not
    say their scale, such as grey levels from 0 to 16."""
    images = data.train
    if scheme not in ("npz", "idx") or SCALE in place or not isinstance(images, Split) or not len(images):
        return data.white
    return data.white if int(images.images.max()) > 127 else None


def as_one(source: str) -> str | None:
    """The source with all its images as one set, whatever their splits are called; None where it has no splits by name,
    or says already which they are."""
    scheme, place = _parse(source)
    if scheme not in ENCODED or parse_choice(place)[1] is not None:
        return None
    return f"{scheme}:{place}[train={'*' if scheme in ('hub', 'shards') else '.'}]"


def split_source(source: str) -> tuple[str, str, str]:
    """What stands before the path in a source, the path, and what stands behind it (brackets, columns, a scale).

    There is no path for ``digits`` and the Hub.
    """
    scheme, colon, place = source.partition(":")
    if source == "digits" or (colon and scheme == "hub"):
        return source, "", ""
    head = f"{scheme}:" if colon and scheme in PLACES else ""
    place = place if head else source
    where = BEHIND.split(place)[0] or place
    if head == "shards:":
        where = PATTERN.split(where)[0]
    return head, where, place[len(where) :]


def _ingest(
    given: "EncodedSet",
    decode: DecodeConfig,
    on_progress: Progress | None,
    refuse: Refuse,
    standard: Normalisation | None,
) -> ImageData:
    from resnetlab.data.ingest import ingest

    told: set[str] = set()

    def check(chosen: Mapping[SplitName, Numbers]) -> None:
        reasons = given.judge(chosen)
        labels = {split: given.labels[numbers] for split, numbers in chosen.items()}
        folders = given.folders and not decode.compact_labels
        judge_classes(given.classes, labels, given.source, reasons.append, folders=folders)
        for reason in reasons:
            if reason not in told:
                told.add(reason)
                refuse(reason)

    return ingest(given, decode, on_progress, refuse, check, standard)


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
    if source and (path.is_dir() or (not colon and Path(parse_choice(source)[0]).is_dir())):
        return "folder", source
    if path.is_file():
        raise ConfigError(f"{source} is a file; write npz:FILE or parquet:DIR, or give a folder of images")
    if "/" in source and not colon:
        raise DataError(f"{source} does not exist; give a folder of images, or one of {', '.join(SOURCES)}")
    if colon:
        raise unknown_name("data source", f"{scheme}:", SOURCES)
    raise ConfigError(f"{unknown_name('data source', source, SOURCES)}; and there is no folder {source}")


def _read(scheme: str, place: str, split_seed: int, refuse: Refuse) -> "ImageData | EncodedSet":
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

        return read_npz(place, split_seed, refuse)
    if scheme == "folder":
        from resnetlab.data.folder import read_folder

        return read_folder(place, split_seed)
    if scheme == "shards":
        from resnetlab.data.shards import read_shards

        return read_shards(place, split_seed, refuse)
    from resnetlab.data.hub import read_hub, read_parquet

    read = read_hub if scheme == "hub" else read_parquet
    return read(place, split_seed, refuse)


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
        white=16,
    )

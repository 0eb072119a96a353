"""What should be known of a set before it is trained on: all that is wrong with it, in one look."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.data.config import DecodeConfig
from resnetlab.data.dataset import ImageData, Images
from resnetlab.data.similarity import near_pairs, thumbnails
from resnetlab.data.sources import Progress, as_one, load_data

BATCH = 256
EXAMPLES = 1000
"""Pairs and images that are listed of each kind."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Images that are copies of an earlier one.

    ``relabelled`` of the ``count`` have another label than that one; ``conflicts`` are the first of these pairs, each
    image with its class. ``examples`` are pairs of sample numbers: the earlier image, and its copy; ``names`` are
    theirs, where the images have names.
    """

    count: int
    relabelled: int
    examples: tuple[tuple[int, int], ...]
    names: tuple[tuple[str, str], ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Images with one value in each channel: how many there are, and the numbers and names of the first."""

    count: int
    examples: tuple[int, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What ``inspect_data`` found.

    ``duplicates``, of equal pixels, has each split, and ``test in train`` and the like: test images that are in
    training too, as pairs (training, test). ``near`` has such pairs of splits, with copies that were scaled, compressed
    or brightened. ``constant`` has each split. ``unreadable`` are images that cannot be read, with the reason, and
    ``refusals`` the reasons why the set is not trained on. Where no image can be read, ``fingerprint`` has the source
    alone.
    """

    fingerprint: dict[str, Any]
    notes: tuple[str, ...]
    duplicates: dict[str, Duplicates]
    near: dict[str, Duplicates]
    constant: dict[str, Constant]
    unreadable: tuple[tuple[str, str], ...] = ()
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Some images ``(n, C, H, W)`` of a class, and their names where they have any."""

    images: Tensor
    names: tuple[str, ...] = ()


def read_anyway(
    source: str, split_seed: int, decode: DecodeConfig, on_progress: Progress | None = None
) -> tuple[ImageData | None, list[str]]:
    """What can be read of a source, and the reasons not to train on it, of which there may be several.

    A set whose splits are not clear is read as one. Raises ``ConfigError`` for a source that is none.
    """
    reasons: list[str] = []
    # All are gone through in any case.
    decode = replace(decode, check="full")
    try:
        return load_data(source, split_seed, decode, on_progress, refuse=reasons.append), reasons
    except DataError as error:
        reasons += error.args
    if (whole := as_one(source)) is None:
        return None, reasons
    further: list[str] = []
    try:
        data = load_data(whole, split_seed, decode, on_progress, refuse=further.append)
    except (DataError, ConfigError):
        return None, reasons
    note = f"read as one set, {whole}, since its splits are not clear"
    # Parts of a folder that are read as classes say nothing of the classes.
    return replace(data, notes=(note, *data.notes)), reasons if whole.startswith("folder:") else reasons + further


def inspect_data(data: ImageData, on_progress: Progress | None = None, refusals: Sequence[str] = ()) -> Inspection:
    """Go through every image of all splits once; duplicates are those of equal SHA-256 over the decoded pixels, near
    ones those that ``near_pairs`` finds beside them."""
    total, done = sum(map(len, data.splits.values())), 0
    sums: dict[str, list[bytes]] = {name: [] for name in data.splits}
    hashes: dict[str, list[Tensor]] = {name: [] for name in data.splits}
    constant: dict[str, Constant] = {}
    for name, split in data.splits.items():
        same: list[int] = []
        for images in split.batches(torch.split(torch.arange(len(split)), BATCH) if len(split) else []):
            flat = images.flatten(2).numpy()
            same += (np.flatnonzero((flat == flat[:, :, :1]).all(axis=(1, 2))) + len(sums[name])).tolist()
            sums[name] += [hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(flat)]
            hashes[name].append(thumbnails(images))
            done += len(images)
            if on_progress:
                on_progress(done, total)
        examples = tuple(same[:EXAMPLES])
        constant[name] = Constant(count=len(same), examples=examples, names=_names(split, examples))
    duplicates: dict[str, Duplicates] = {
        name: _count_pairs(_pairs_within(sums[name]), split, split, data.classes) for name, split in data.splits.items()
    }
    near: dict[str, Duplicates] = {}
    for earlier, later in combinations(data.splits, 2):
        pairs = _pairs_across(sums[earlier], sums[later])
        two = data.splits[earlier], data.splits[later]
        duplicates[f"{later} in {earlier}"] = _count_pairs(pairs, *two, data.classes)
        equal = {number for _, number in pairs}
        alike = near_pairs(*(torch.cat(hashes[name]) for name in (earlier, later))) if all(map(len, two)) else []
        near[f"{later} in {earlier}"] = _count_pairs(
            [pair for pair in alike if pair[1] not in equal], *two, data.classes
        )
    return Inspection(
        fingerprint=data.fingerprint,
        notes=data.notes,
        duplicates=duplicates,
        near=near,
        constant=constant,
        unreadable=data.unreadable,
        refusals=tuple(refusals),
    )


def unread(source: str, data: ImageData | None, refusals: Sequence[str]) -> Inspection:
    """What is known of a source none of whose images can be read: of ``data``, where there are any, which and why."""
    return Inspection(
        fingerprint={"source": source},
        notes=() if data is None else data.notes,
        duplicates={},
        near={},
        constant={},
        unreadable=() if data is None else data.unreadable,
        refusals=tuple(refusals),
    )


def pick_samples(data: ImageData, most_classes: int, each: int) -> dict[int, Samples]:
    """Training images, n ≤ ``each``, spread evenly over those of a class, by the class's number.

    Classes without training images have n = 0; the first ``most_classes`` are taken.
    """
    labels = data.train.labels.cpu()
    picked = {}
    for number in range(min(len(data.classes), most_classes)):
        members = torch.nonzero(labels == number).flatten()
        spread = members[torch.linspace(0, max(0, len(members) - 1), min(each, len(members))).round().long()]
        empty = torch.empty((0, *data.train.shape), dtype=torch.uint8)
        images = next(iter(data.train.batches([spread])), empty) if len(members) else empty
        picked[number] = Samples(images=images, names=_names(data.train, spread.tolist()))
    return picked


def _names(split: Images, numbers: Sequence[int]) -> tuple[str, ...]:
    return () if split.names is None else tuple(split.names[number] for number in numbers)


def _pairs_within(sums: list[bytes]) -> list[tuple[int, int]]:
    first: dict[bytes, int] = {}
    return [(first[sum_], number) for number, sum_ in enumerate(sums) if first.setdefault(sum_, number) != number]


def _pairs_across(earlier: list[bytes], later: list[bytes]) -> list[tuple[int, int]]:
    # Backwards, so that of equal ones the first stays.
    first = {earlier[number]: number for number in reversed(range(len(earlier)))}
    return [(first[sum_], number) for number, sum_ in enumerate(later) if sum_ in first]


def _count_pairs(pairs: list[tuple[int, int]], earlier: Images, later: Images, classes: Sequence[str]) -> Duplicates:
    examples = tuple(pairs[:EXAMPLES])
    old, new = earlier.labels.tolist(), later.labels.tolist()
    one, other = _names(earlier, [a for a, _ in examples]), _names(later, [b for _, b in examples])
    conflicts = [(a, b) for a, b in pairs if old[a] != new[b]]
    called = [(_names(earlier, [a]) or (str(a),), _names(later, [b]) or (str(b),)) for a, b in conflicts[:EXAMPLES]]
    return Duplicates(
        count=len(pairs),
        relabelled=len(conflicts),
        examples=examples,
        names=tuple(zip(one, other, strict=False)),
        conflicts=tuple(
            (f"{x} ({classes[old[a]]})", f"{y} ({classes[new[b]]})")
            for ((x,), (y,)), (a, b) in zip(called, conflicts, strict=False)
        ),
    )

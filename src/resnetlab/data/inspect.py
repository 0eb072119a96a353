"""What should be known of a set before it is trained on: counts, images that occur twice, images of one colour."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnetlab.data.dataset import ImageData, Images
from resnetlab.data.sources import Progress

BATCH = 256
EXAMPLES = 5


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Images whose pixels are all equal to those of an earlier one.

    ``relabelled`` of the ``count`` have another label than that one. ``examples`` are pairs of sample numbers: the
    earlier image, and its copy; ``names`` are theirs, where the images have names.
    """

    count: int
    relabelled: int
    examples: tuple[tuple[int, int], ...]
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Images with one value in each channel: how many there are, and the numbers and names of the first."""

    count: int
    examples: tuple[int, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What ``inspect_data`` found.

    ``duplicates`` has each split, and ``test in train`` and the like: test images that are in training too, as pairs
    (training, test). ``constant`` has each split.
    """

    fingerprint: dict[str, Any]
    notes: tuple[str, ...]
    duplicates: dict[str, Duplicates]
    constant: dict[str, Constant]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Some images ``(n, C, H, W)`` of a class, and their names where they have any."""

    images: Tensor
    names: tuple[str, ...] = ()


def inspect_data(data: ImageData, on_progress: Progress | None = None) -> Inspection:
    """Go through every image of all splits once; duplicates are those of equal SHA-256 over the decoded pixels."""
    total, done = sum(map(len, data.splits.values())), 0
    sums: dict[str, list[bytes]] = {name: [] for name in data.splits}
    constant: dict[str, Constant] = {}
    for name, split in data.splits.items():
        same: list[int] = []
        for images in split.batches(torch.split(torch.arange(len(split)), BATCH)):
            flat = images.flatten(2).numpy()
            same += (np.flatnonzero((flat == flat[:, :, :1]).all(axis=(1, 2))) + len(sums[name])).tolist()
            sums[name] += [hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(flat)]
            done += len(images)
            if on_progress:
                on_progress(done, total)
        examples = tuple(same[:EXAMPLES])
        constant[name] = Constant(count=len(same), examples=examples, names=_names(split, examples))
    duplicates: dict[str, Duplicates] = {
        name: _count_pairs(_pairs_within(sums[name]), split, split) for name, split in data.splits.items()
    }
    for earlier, later in combinations(data.splits, 2):
        pairs = _pairs_across(sums[earlier], sums[later])
        duplicates[f"{later} in {earlier}"] = _count_pairs(pairs, data.splits[earlier], data.splits[later])
    return Inspection(fingerprint=data.fingerprint, notes=data.notes, duplicates=duplicates, constant=constant)


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


def _count_pairs(pairs: list[tuple[int, int]], earlier: Images, later: Images) -> Duplicates:
    examples = tuple(pairs[:EXAMPLES])
    old, new = earlier.labels.tolist(), later.labels.tolist()
    one, other = _names(earlier, [a for a, _ in examples]), _names(later, [b for _, b in examples])
    return Duplicates(
        count=len(pairs),
        relabelled=sum(old[a] != new[b] for a, b in pairs),
        examples=examples,
        names=tuple(zip(one, other, strict=False)),
    )

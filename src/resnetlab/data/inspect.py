"""What should be known of a set before it is trained on: counts, images that occur twice, images of one colour."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
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
    earlier image, and its copy.
    """

    count: int
    relabelled: int
    examples: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Images with one value in each channel: how many there are, and the numbers of the first."""

    count: int
    examples: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What ``inspect_data`` found. ``duplicates`` has ``train``, ``test``, and ``across``: test images that are in
    training too, as pairs (training, test)."""

    fingerprint: dict[str, Any]
    notes: tuple[str, ...]
    duplicates: dict[str, Duplicates]
    constant: dict[str, Constant]


def inspect_data(data: ImageData, on_progress: Progress | None = None) -> Inspection:
    """Go through every image of both splits once; duplicates are those of equal SHA-256 over the decoded pixels."""
    total, done = len(data.train) + len(data.reported), 0
    sums: dict[str, list[bytes]] = {"train": [], "test": []}
    constant: dict[str, list[int]] = {"train": [], "test": []}
    for name, split in (("train", data.train), ("test", data.reported)):
        for images in _in_order(split):
            flat = images.flatten(2).numpy()
            same = np.flatnonzero((flat == flat[:, :, :1]).all(axis=(1, 2))) + len(sums[name])
            constant[name] += same.tolist()
            sums[name] += [hashlib.sha256(image.data).digest() for image in np.ascontiguousarray(flat)]
            done += len(images)
            if on_progress:
                on_progress(done, total)
    labels = {"train": data.train.labels.tolist(), "test": data.reported.labels.tolist()}
    found = {name: _find_duplicates(sums[name], labels[name]) for name in sums}
    found["across"] = _find_across(sums, labels)
    return Inspection(
        fingerprint=data.fingerprint,
        notes=data.notes,
        duplicates=found,
        constant={
            name: Constant(count=len(which), examples=tuple(which[:EXAMPLES])) for name, which in constant.items()
        },
    )


def pick_samples(data: ImageData, most_classes: int, each: int) -> dict[int, Tensor]:
    """Training images ``(n, C, H, W)``, n ≤ ``each``, spread evenly over those of a class, by the class's number.

    Classes without training images have n = 0; the first ``most_classes`` are taken.
    """
    labels = data.train.labels.cpu()
    picked = {}
    for number in range(min(len(data.classes), most_classes)):
        members = torch.nonzero(labels == number).flatten()
        spread = torch.linspace(0, max(0, len(members) - 1), min(each, len(members))).round().long()
        empty = torch.empty((0, *data.train.shape), dtype=torch.uint8)
        picked[number] = next(iter(data.train.batches([members[spread]])), empty) if len(members) else empty
    return picked


def _in_order(split: Images) -> Iterator[Tensor]:
    return split.batches(torch.split(torch.arange(len(split)), BATCH))


def _find_duplicates(sums: list[bytes], labels: list[int]) -> Duplicates:
    first: dict[bytes, int] = {}
    return _count_pairs(
        [(first[sum_], number) for number, sum_ in enumerate(sums) if first.setdefault(sum_, number) != number],
        labels,
        labels,
    )


def _find_across(sums: dict[str, list[bytes]], labels: dict[str, list[int]]) -> Duplicates:
    first: dict[bytes, int] = {}
    for number, sum_ in enumerate(sums["train"]):
        first.setdefault(sum_, number)
    pairs = [(first[sum_], number) for number, sum_ in enumerate(sums["test"]) if sum_ in first]
    return _count_pairs(pairs, labels["train"], labels["test"])


def _count_pairs(pairs: list[tuple[int, int]], earlier: list[int], later: list[int]) -> Duplicates:
    return Duplicates(
        count=len(pairs),
        relabelled=sum(earlier[one] != later[other] for one, other in pairs),
        examples=tuple(pairs[:EXAMPLES]),
    )

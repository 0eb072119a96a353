"""A split whose pixels stay in their file, which is mapped into memory: what no batch asks for is not read."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

import numpy as np
import torch
from torch import Tensor

from resnetlab.data.dataset import Encoding, Normalisation, Numbers, Split, others
from resnetlab.data.transforms import ResizedCrop

AT_ONCE = 256
LOCAL_HEADER = 30
"""Bytes before the name of an entry of a zip. Source: APPNOTE.TXT of PKWARE, 4.3.7."""


def map_array(path: Path, entry: ZipInfo, start: int, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """The uint8 values of a zip's ``entry``, stored as it is, where they lie: ``start`` bytes behind its beginning."""
    with open(path, "rb") as stream:
        stream.seek(entry.header_offset)
        head = stream.read(LOCAL_HEADER)
    names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    # Copied on writing, so that torch takes it; nobody writes.
    return np.memmap(path, np.uint8, "c", entry.header_offset + LOCAL_HEADER + names + start, shape)


@dataclass(frozen=True, kw_only=True)
class MappedSplit:
    """The images ``numbers`` of ``array`` ``(N, C, H, W)``, uint8, with their ``labels``."""

    array: np.ndarray[Any, np.dtype[np.uint8]]
    numbers: Numbers
    labels: Tensor
    encoding: Encoding = "lossless"
    names: None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.array.shape
        return channels, height, width

    def to(self, device: torch.device) -> "MappedSplit":
        return replace(self, labels=self.labels.to(device))

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        """As ``Images.batches``; where the file has the channels last, so have they."""
        for which in plan:
            images = torch.from_numpy(self.array[self.numbers[which.numpy()]]).to(self.labels.device)
            yield images if crop is None else crop.cut(images, which)

    def divide(self, numbers: Tensor) -> "tuple[MappedSplit, MappedSplit]":
        return self._only(others(numbers, len(self))), self._only(numbers)

    def _only(self, numbers: Tensor) -> "MappedSplit":
        labels = self.labels[numbers.to(self.labels.device)]
        return replace(self, numbers=self.numbers[numbers.numpy()], labels=labels)

    def relabelled(self, labels: Tensor) -> "MappedSplit":
        return replace(self, labels=labels)

    def _all(self) -> Iterator[Tensor]:
        return self.to(torch.device("cpu")).batches(torch.split(torch.arange(len(self)), AT_ONCE))

    def statistics(self) -> Normalisation:
        return Normalisation.of_counts(self.histogram())

    @property
    def brightest(self) -> int:
        return int(self.histogram().sum(0).nonzero().max())

    def histogram(self) -> Tensor:
        """As ``Split.histogram``; every image is read."""
        counts = torch.zeros(self.shape[0], 256, dtype=torch.float64)
        for images in self._all():
            counts += Split(images=images, labels=self.labels).histogram()
        return counts

    def feed(self, content: "hashlib._Hash") -> None:
        for images in self._all():
            content.update(images.contiguous().numpy().data)
        content.update(self.labels.cpu().contiguous().numpy().data)

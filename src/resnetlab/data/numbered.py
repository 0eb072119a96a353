"""A split of what is kept elsewhere, in a file or a Dataset: its images are known by their numbers there."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from resnetlab.data.dataset import Encoding, Normalisation, Numbers, Split, others
from resnetlab.data.transforms import ResizedCrop

AT_ONCE = 64
"""Images that are read at a time where all are."""


@dataclass(frozen=True, kw_only=True)
class NumberedSplit(ABC):
    """The images ``numbers`` of something that has them, and maybe others, read when they are asked for."""

    numbers: Numbers
    labels: Tensor
    shape: tuple[int, int, int]
    encoding: Encoding = "lossless"
    names: None = None

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        """As ``Images.batches``."""

    def to(self, device: torch.device) -> Self:
        return replace(self, labels=self.labels.to(device))

    def divide(self, numbers: Tensor) -> tuple[Self, Self]:
        return self._only(others(numbers, len(self))), self._only(numbers)

    def _only(self, numbers: Tensor) -> Self:
        labels = self.labels[numbers.to(self.labels.device)]
        return replace(self, numbers=self.numbers[numbers.numpy()], labels=labels)

    def relabelled(self, labels: Tensor) -> Self:
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

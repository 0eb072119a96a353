"""Sets of pictures that fit in memory: uint8 arrays with labels, and what identifies them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Split:
    """``images`` ``(N, C, H, W)`` as uint8 and ``labels`` ``(N,)`` as int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Split":
        """The same split on another device, still as uint8: a quarter of the memory of float32."""
        return Split(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(x - mean) / sd for each channel, x in the units of the stored pictures."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The function from ``(N, C, H, W)`` of any number type to float32, its constants held on ``device``."""
        mean, sd = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.sd))
        return lambda images: images.to(torch.float32).sub(mean).div_(sd)


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """A training and a test split with the names of their classes."""

    source: str
    train: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def in_chans(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """The side of the pictures, which are square."""
        return self.train.images.shape[2]

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel over the training pictures; a constant channel is not divided."""
        mean, sd = [], []
        for channel in range(self.in_chans):
            counts = torch.bincount(self.train.images[:, channel].flatten(), minlength=256).double()
            values = torch.arange(256, dtype=torch.float64)
            average = (counts * values).sum() / counts.sum()
            variance = (counts * (values - average) ** 2).sum() / counts.sum()
            mean.append(average.item())
            sd.append(variance.sqrt().item() or 1.0)
        return Normalisation(mean=tuple(mean), sd=tuple(sd))

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the set in a record: counts, shape, statistics, and SHA-256 over pictures and labels."""
        content = hashlib.sha256()
        for split in (self.train, self.test):
            content.update(split.images.contiguous().numpy().data)
            content.update(split.labels.contiguous().numpy().data)
        return {
            "source": self.source,
            "train": len(self.train),
            "test": len(self.test),
            "shape": list(self.train.images.shape[1:]),
            "classes": list(self.classes),
            "mean": list(self.normalisation.mean),
            "sd": list(self.normalisation.sd),
            "sha256": content.hexdigest(),
        }

"""Sets of images: what every split can be asked for, splits held in memory, and what identifies a set."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from resnetlab.core.randomness import generator
from resnetlab.data.transforms import ResizedCrop, crop_resized, resized_boxes

Encoding = Literal["lossless", "jpeg", "mixed"]


class Images(Protocol):
    """One split: images with labels, held in memory (``Split``) or decoded when asked for (``EncodedSplit``)."""

    @property
    def labels(self) -> Tensor:
        """``(N,)`` as int64, on the device that batches are put on."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""

    @property
    def encoding(self) -> Encoding:
        """Whether the images went through lossy compression."""

    @property
    def names(self) -> Sequence[str] | None:
        """What each image is called where it came from, such as its file; None where nothing names them."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self:
        """The same split with its batches on another device."""

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        """For each tensor of sample numbers in ``plan`` the images, uint8 ``(B, C, H, W)``, in that order.

        ``crop``, on the device of the batches, decides the box of every sample's random resized crop; None takes the
        whole image.
        """

    def histogram(self) -> Tensor:
        """How often each grey level occurs in each channel: ``(C, 256)``, float64."""

    def feed(self, content: "hashlib._Hash") -> None:
        """Update the hash with images and labels."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """``images`` ``(N, C, H, W)`` as uint8 and ``labels`` ``(N,)`` as int64, in memory."""

    images: Tensor
    labels: Tensor
    encoding: Encoding = "lossless"
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def to(self, device: torch.device) -> "Split":
        """The same split on another device, still as uint8: a quarter of the memory of float32."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        for numbers in plan:
            which = numbers.to(self.images.device, non_blocking=True)
            # As images[which], which copies value by value: twenty times as long on a CPU.
            images = self.images.index_select(0, which)
            if crop is not None:
                _, height, width = self.shape
                images = crop_resized(images, resized_boxes(crop.uniforms[which], height, width, crop.scale))
            yield images

    def histogram(self) -> Tensor:
        channels = [self.images[:, channel].flatten() for channel in range(self.shape[0])]
        return torch.stack([torch.bincount(values, minlength=256) for values in channels]).double()

    def feed(self, content: "hashlib._Hash") -> None:
        content.update(self.images.contiguous().numpy().data)
        content.update(self.labels.contiguous().numpy().data)


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(x - mean) / sd for each channel, x in the units of the stored images."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]

    def on(self, device: torch.device) -> Callable[[Tensor], Tensor]:
        """The function from ``(N, C, H, W)`` of any number type to float32, its constants held on ``device``."""
        mean, sd = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.sd))
        return lambda images: images.to(torch.float32).sub(mean).div_(sd)


SplitName = Literal["train", "validation", "test"]
ORDER: tuple[SplitName, ...] = ("train", "test", "validation")
"""In which the splits make the SHA-256 of a set."""


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Images for training, validation and test, with the names of their classes.

    What chooses (an epoch, a rate, an early end) is ``validation``; what is reported is ``test``. A set may lack either
    of the two, never both. ``notes`` are what a user should know of how they were read, such as files that were left
    out. ``standard`` are the statistics to standardise by where they are not the training images' own.
    """

    source: str
    train: Images
    test: Images | None = None
    validation: Images | None = None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    standard: Normalisation | None = None

    @property
    def splits(self) -> "dict[SplitName, Images]":
        """The splits that the set has, by name."""
        parts: dict[SplitName, Images | None] = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}

    @property
    def reported_split(self) -> "SplitName":
        """The split that figures are reported of: test, or validation where there is no test."""
        return "validation" if self.test is None else "test"

    @property
    def reported(self) -> Images:
        """The images of ``reported_split``."""
        return self.splits[self.reported_split]

    @property
    def in_chans(self) -> int:
        return self.train.shape[0]

    @property
    def image_size(self) -> int:
        """The side of the images, which are square."""
        return self.train.shape[1]

    @cached_property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation of each channel over the training images; a constant channel is not divided."""
        if self.standard is not None:
            return self.standard
        mean, sd = [], []
        values = torch.arange(256, dtype=torch.float64)
        for counts in self.train.histogram():
            average = (counts * values).sum() / counts.sum()
            variance = (counts * (values - average) ** 2).sum() / counts.sum()
            mean.append(average.item())
            sd.append(variance.sqrt().item() or 1.0)
        return Normalisation(mean=tuple(mean), sd=tuple(sd))

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the set in a record: counts, shape, statistics, and SHA-256 over images and labels."""
        content = hashlib.sha256()
        counts = {}
        # In this order a set without validation has the sum that it always had.
        splits = {name: self.splits[name] for name in ORDER if name in self.splits}
        for name, split in splits.items():
            split.feed(content)
            counts[name] = torch.bincount(split.labels.cpu(), minlength=len(self.classes)).tolist()
        encodings = {split.encoding for split in splits.values()}
        return {
            "source": self.source,
            **{name: len(split) for name, split in splits.items()},
            "shape": list(self.train.shape),
            "classes": list(self.classes),
            **{f"{name}_counts": counts[name] for name in splits},
            "encoding": encodings.pop() if len(encodings) == 1 else "mixed",
            "mean": list(self.normalisation.mean),
            "sd": list(self.normalisation.sd),
            "sha256": content.hexdigest(),
        }


TEST_SHARE = 0.2


def split_by_class(labels: "np.ndarray[tuple[int], np.dtype[np.int64]]", seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the training and of the test images, each rising: a fifth of every class goes to the test.

    What becomes of a class depends on (seed, class, its count) alone. A class of one image has it in training.
    """
    train: list[int] = []
    test: list[int] = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        members = members[generator(seed, "split", label).permutation(len(members))]
        tests = min(max(1, round(TEST_SHARE * len(members))), len(members) - 1)
        test += members[:tests].tolist()
        train += members[tests:].tolist()
    return sorted(train), sorted(test)

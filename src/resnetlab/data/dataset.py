"""Sets of images: what every split can be asked for, splits held in memory, and what identifies a set."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from resnetlab.core.errors import DataError
from resnetlab.core.randomness import generator
from resnetlab.data.transforms import ResizedCrop

Encoding = Literal["lossless", "jpeg", "mixed"]
Numbers = np.ndarray[Any, np.dtype[np.int64]]
Value = TypeVar("Value", covariant=True)


class Chosen(Sequence[Value]):
    """Those values of a sequence that have the given numbers, as a view: nothing is copied."""

    def __init__(self, values: Sequence[Value], numbers: Numbers) -> None:
        self.values, self.numbers = values, numbers
        if isinstance(values, Chosen):
            # A view of a view looks at the values themselves.
            self.values, self.numbers = values.values, values.numbers[numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Value:  # type: ignore[override]  # no slices
        return self.values[int(self.numbers[number])]


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
        """What each image is called: its file within the folder, or its row of a table; None for arrays."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device) -> Self:
        """The same split with its batches on another device."""

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        """For each tensor of sample numbers in ``plan`` the images, uint8 ``(B, C, H, W)``, in that order, in a tensor
        that its taker may write to.

        ``crop``, on the device of the batches, decides the box of every sample's random resized crop; None takes the
        whole image.
        """

    def divide(self, numbers: Tensor) -> tuple[Self, Self]:
        """Two splits: of all images but those of the given numbers, and of those."""

    def relabelled(self, labels: Tensor) -> Self:
        """The same images with other labels ``(N,)``."""

    def statistics(self) -> "Normalisation":
        """Mean and standard deviation of each channel, in grey levels; 1 in place of a deviation of 0."""

    @property
    def brightest(self) -> int:
        """The highest grey level of any image; 255 for images that are decoded when asked for."""

    def feed(self, content: "hashlib._Hash") -> None:
        """Update the hash with images and labels."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """``images`` ``(N, C, H, W)`` as uint8 and ``labels`` ``(N,)`` as int64, in memory; ``store`` has the files that
    they were decoded from, if any."""

    images: Tensor
    labels: Tensor
    encoding: Encoding = "lossless"
    names: Sequence[str] | None = None
    store: Sequence[bytes | Path] | None = None

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
            yield images if crop is None else crop.cut(images, which)

    def divide(self, numbers: Tensor) -> "tuple[Split, Split]":
        return self._only(others(numbers, len(self))), self._only(numbers)

    def _only(self, numbers: Tensor) -> "Split":
        which = numbers.to(self.images.device)
        return replace(
            self,
            images=self.images.index_select(0, which),
            labels=self.labels[which],
            names=self.names and Chosen(self.names, numbers.numpy()),
            store=self.store and Chosen(self.store, numbers.numpy()),
        )

    def relabelled(self, labels: Tensor) -> "Split":
        return replace(self, labels=labels)

    def histogram(self) -> Tensor:
        """How often each grey level occurs in each channel: ``(C, 256)``, float64."""
        channels = [self.images[:, channel].flatten() for channel in range(self.shape[0])]
        return torch.stack([torch.bincount(values, minlength=256) for values in channels]).double()

    def statistics(self) -> "Normalisation":
        return Normalisation.of_counts(self.histogram())

    @property
    def brightest(self) -> int:
        return int(self.images.max())

    def feed(self, content: "hashlib._Hash") -> None:
        content.update(self.images.contiguous().numpy().data)
        content.update(self.labels.contiguous().numpy().data)


def others(numbers: Tensor, count: int) -> Tensor:
    """The numbers below ``count`` that are not among ``numbers``, rising."""
    left = torch.ones(count, dtype=torch.bool)
    left[numbers] = False
    return left.nonzero().flatten()


PART = 1 << 18
"""Values that are standardised at a time."""


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """(x - mean) / std for each channel, x in the units of the stored images."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def on(
        self, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
    ) -> Callable[[Tensor], Tensor]:
        """The function from ``(N, C, H, W)`` of any number type to float32 in ``memory_format``, its constants held on
        ``device``."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (self.mean, self.std))

        def standardise(images: Tensor) -> Tensor:
            return images.to(torch.float32).sub(mean).div_(std)

        if device.type != "cpu":
            return lambda images: standardise(images).contiguous(memory_format=memory_format)

        def in_parts(images: Tensor) -> Tensor:
            _, channels, height, width = images.shape
            # Of one channel both formats are the same bytes; torch then takes them for contiguous ones.
            last = memory_format == torch.channels_last and channels > 1
            made = torch.empty(images.shape, memory_format=memory_format if last else torch.contiguous_format)
            by_row = last and images.is_contiguous(memory_format=memory_format)
            means, stds = (values.flatten().repeat(width if by_row else 0) for values in (mean, std))
            # A part stays in the cache for all of its passes.
            size = max(1, PART // (channels * height * width))
            for given, part in zip(torch.split(images, size), torch.split(made, size), strict=True):
                if by_row:
                    # A whole row at a time: the three values of a pixel would not fill a register.
                    part.copy_(given).permute(0, 2, 3, 1).view(-1, height, width * channels).sub_(means).div_(stds)
                else:
                    part.copy_(standardise(given))
            return made

        return in_parts

    @classmethod
    def of_counts(cls, counts: Tensor) -> "Normalisation":
        """That of images of which each grey level occurs so often in each channel, ``(C, 256)``."""
        mean, std = [], []
        values = torch.arange(256, dtype=torch.float64)
        for channel in counts:
            average = (channel * values).sum() / channel.sum()
            variance = (channel * (values - average) ** 2).sum() / channel.sum()
            mean.append(average.item())
            std.append(variance.sqrt().item() or 1.0)
        return cls(mean=tuple(mean), std=tuple(std))


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of each image the sum of its grey levels in each channel and that of their squares, ``(N, 3)``, over ``pixels``
    of them. Of a sample they are those of the images ``numbers``, which rise; None are all.

    Whole numbers, so that mean and variance are exact before they are rounded once.
    """

    pixels: int
    sums: np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]
    squares: np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]
    numbers: Numbers | None = None

    def only(self, numbers: Numbers) -> "Moments":
        """Those of the images of these numbers, which become 0, 1, …"""
        if self.numbers is None:
            return replace(self, sums=self.sums[numbers], squares=self.squares[numbers])
        _, places, rows = np.intersect1d(numbers, self.numbers, return_indices=True)
        order = np.argsort(places)
        rows = rows[order]
        return replace(self, sums=self.sums[rows], squares=self.squares[rows], numbers=places[order])

    def statistics(self) -> Normalisation:
        """Mean and standard deviation. Raises ``DataError`` where there are none of any image."""
        count = self.pixels * len(self.sums)
        if not count:
            raise DataError("no image was looked at for mean and standard deviation; give those to standardise by")
        mean, std = [], []
        for channel in range(self.sums.shape[1]):
            total, squares = (int(of[:, channel].sum(dtype=np.uint64)) for of in (self.sums, self.squares))
            mean.append(total / count)
            std.append(math.sqrt((count * squares - total**2) / count**2) or 1.0)
        return Normalisation(mean=tuple(mean), std=tuple(std))


SplitName = Literal["train", "validation", "test"]
ORDER: tuple[SplitName, ...] = ("train", "test", "validation")
"""In which the splits make the SHA-256 of a set."""


@dataclass(frozen=True, kw_only=True)
class ImageData:
    """Images for training, validation and test, with the names of their classes.

    What chooses (an epoch, a rate, an early end) is ``validation``; what is reported is ``test``. A set may lack either
    of the two, never both. ``notes`` are what a user should know of how they were read, such as files that were left
    out; ``unreadable`` are these, with the reason. ``standard`` are the statistics to standardise by where they are not
    the training images' own. ``white`` is the value of a white pixel, or None where the data do not say it. ``check``
    is how the images were looked at (``DecodeConfig.check``).
    """

    source: str
    train: Images
    test: Images | None = None
    validation: Images | None = None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    standard: Normalisation | None = None
    white: int | None = 255
    check: Literal["full", "head", "none"] = "full"

    @property
    def splits(self) -> "dict[SplitName, Images]":
        """The splits that the set has, by name."""
        parts: dict[SplitName, Images | None] = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: images for name, images in parts.items() if images is not None}

    @property
    def reported_split(self) -> Literal["validation", "test"]:
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
        return self.train.statistics() if self.standard is None else self.standard

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What identifies the set in a record: counts, shape, statistics, and SHA-256 over images and labels.

        Of images that were not all read (``check``, which it has then), names and sizes of the files stand for them.
        """
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
            "sd": list(self.normalisation.std),
            "white": self.white,
            **({} if self.check == "full" else {"check": self.check}),
            "sha256": content.hexdigest(),
        }


TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


def split_by_class(
    labels: Numbers, seed: int, share: float = TEST_SHARE, purpose: str = "split"
) -> tuple[Numbers, Numbers]:
    """Numbers of the training images and of those split off, each rising: ``share`` of every class is split off.

    What becomes of a class depends on (seed, class, its count) alone. At least one image of a class is split off, and
    at least one stays: a class of one image has it in training.
    """
    off = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    classes, starts = np.unique(labels[order], return_index=True)
    for label, members in zip(classes.tolist(), np.split(order, starts[1:]), strict=False):
        members = members[generator(seed, purpose, label).permutation(len(members))]
        off[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return np.flatnonzero(~off), np.flatnonzero(off)


def hold_out(data: ImageData, seed: int) -> ImageData:
    """``data`` with a tenth of each class of its training images as validation, drawn from (seed, class).

    At least one image of a class of two or more; encoded images are not copied. The set's statistics become those of
    the training images that are left.

    Raises ``DataError`` for a set that has a validation split already, and where no class has two training images.
    """
    if data.validation is not None:
        raise DataError(f"{data.source} has a validation split of its own; hold none out of its training images")
    _, held = split_by_class(data.train.labels.cpu().numpy(), seed, VALIDATION_SHARE, "validation")
    if not len(held):
        raise DataError(
            f"{data.source}: every class has one training image, so none can be held out to validate on; add images, "
            "or train without validation"
        )
    train, validation = data.train.divide(torch.from_numpy(held))
    return replace(data, train=train, validation=validation)

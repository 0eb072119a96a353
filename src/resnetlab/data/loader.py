"""Batches of a split: shuffled and varied for training, in order for evaluation."""

from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from torch import Tensor

from resnetlab.core.randomness import generator
from resnetlab.data.augmentation import Augmentation
from resnetlab.data.dataset import Images, Normalisation, Numbers
from resnetlab.data.transforms import ResizedCrop


class Loader:
    """Batches ``(images, labels)``: float32 ``(B, C, H, W)``, normalised, and int64 ``(B,)``, on the split's device.

    A batch of ``batch_size`` images is cut into ``micro_batches``, and each of these is shared by ``ranks``
    processes, of which this is ``rank``: at any time all ranks together work on the same images, however many they are.
    ``memory_format`` is that of the images. ``augmentation`` varies training images; with mixup the labels become
    ``(B, K)``. ``only`` are the sample numbers that are used, all by default. ``balanced`` takes as many of each class.
    """

    def __init__(
        self,
        split: Images,
        normalisation: Normalisation,
        batch_size: int,
        *,
        memory_format: torch.memory_format = torch.contiguous_format,
        augmentation: Augmentation | None = None,
        micro_batches: int = 1,
        rank: int = 0,
        ranks: int = 1,
        only: Tensor | None = None,
        balanced: bool = False,
    ) -> None:
        self.split = split
        self.device = split.labels.device
        self.samples = torch.arange(len(split)) if only is None else only.cpu()
        self.normalise = normalisation.on(self.device, memory_format)
        self.batch_size = min(batch_size, len(self.samples))
        self.memory_format = memory_format
        self.augmentation = augmentation
        self.micro_batches = micro_batches
        self.rank, self.ranks = rank, ranks
        self.balanced = balanced

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def steps(self) -> int:
        """Steps in an epoch. An incomplete last batch is dropped: BN would take its statistics from too few samples."""
        return len(self.samples) // self.batch_size

    def shuffled(self, seed: int, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from step ``start`` on, ``micro_batches`` to a step.

        Their order is a function of (seed, epoch) alone; how an image is varied is one of (seed, epoch, sample).
        """
        if self.balanced:
            places = balanced_order(self.split.labels.cpu()[self.samples].numpy(), seed, epoch)
        else:
            places = generator(seed, "order", epoch).permutation(len(self.samples))
        order = self.samples[torch.from_numpy(places)]
        whole = order[: self.steps * self.batch_size]
        plan = list(whole.view(self.steps, self.micro_batches, self.ranks, -1)[start:, :, self.rank].flatten(0, 1))
        if self.augmentation is None:
            yield from self._plain(plan)
            return
        draws = self.augmentation.draw(len(self.split), self.steps, seed, epoch).to(self.device)
        for number, (which, images) in enumerate(self._fetch(plan, draws.resized)):
            images = self.augmentation.vary(images, draws, which)
            images = self.augmentation.blank(self.normalise(images), draws, which)
            step = start + number // self.micro_batches
            images, labels = self.augmentation.mix(images, self._labels(which), draws, step)
            yield images, labels

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once; rank r takes batches r, r + ranks, …"""
        batches = torch.split(self.samples, self.batch_size)
        return self._plain(batches[self.rank :: self.ranks])

    def _plain(self, plan: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for which, images in self._fetch(plan, None):
            yield self.normalise(images), self._labels(which)

    def _fetch(self, plan: Sequence[Tensor], crop: ResizedCrop | None) -> Iterator[tuple[Tensor, Tensor]]:
        with closing(self.split.batches(plan, crop)) as batches:  # type: ignore[type-var]  # a generator
            yield from zip(plan, batches, strict=True)

    def _labels(self, which: Tensor) -> Tensor:
        return self.split.labels[which.to(self.device, non_blocking=True)]


def balanced_order(labels: Numbers, seed: int, epoch: int) -> Numbers:
    """As many places as there are ``labels``, as many of each class, in an order that (seed, epoch) alone decides.

    Of n images of K classes each class has ⌊n / K⌋ or one more: permutations of its images one after another, cut
    there. So none is repeated before all of its class were taken, and of a common class each epoch takes others.
    """
    draw = generator(seed, "balanced", epoch)
    classes = np.unique(labels)
    each, more = divmod(len(labels), len(classes))
    taken = []
    for label, place in zip(classes, draw.permutation(len(classes)), strict=True):
        members, count = np.flatnonzero(labels == label), each + (place < more)
        rounds = [draw.permutation(members) for _ in range(-(-count // len(members)))]
        taken.append(np.concatenate([members[:0], *rounds])[:count])
    return draw.permutation(np.concatenate(taken))

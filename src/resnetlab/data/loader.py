"""Batches of a split: shuffled for training, in order for evaluation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from resnetlab.data.arrays import Normalisation, Split
from resnetlab.randomness import generator


class Loader:
    """Batches ``(images, labels)``: float32 ``(B, C, H, W)``, normalised, and int64 ``(B,)``, on the split's device.

    ``memory_format`` is that of the images.
    """

    def __init__(
        self,
        split: Split,
        normalisation: Normalisation,
        batch_size: int,
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.split = split
        self.normalise = normalisation.on(split.images.device)
        self.batch_size = min(batch_size, len(split))
        self.memory_format = memory_format

    @property
    def steps(self) -> int:
        """Batches in one pass of training. The samples of an incomplete last batch wait for another pass: BN would
        take its statistics from too few of them."""
        return len(self.split) // self.batch_size

    def shuffled(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in an order that is a function of (seed, epoch) alone."""
        order = torch.from_numpy(generator(seed, "order", epoch).permutation(len(self.split)))
        order = order.to(self.split.labels.device)
        for step in range(self.steps):
            yield self._batch(order[step * self.batch_size : (step + 1) * self.batch_size])

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once."""
        for start in range(0, len(self.split), self.batch_size):
            yield self._batch(slice(start, start + self.batch_size))

    def _batch(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        images = self.normalise(self.split.images[which])
        return images.contiguous(memory_format=self.memory_format), self.split.labels[which]

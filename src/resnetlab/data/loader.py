"""Batches of a split: shuffled for training, in order for evaluation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from resnetlab.data.arrays import Normalisation, Split
from resnetlab.data.augment import crop_padded, draw_offsets
from resnetlab.randomness import generator


class Loader:
    """Batches ``(images, labels)``: float32 ``(B, C, H, W)``, normalised, and int64 ``(B,)``, on the split's device.

    ``memory_format`` is that of the images. Training pictures are padded by ``crop_padding`` pixels and cropped at
    random.
    """

    def __init__(
        self,
        split: Split,
        normalisation: Normalisation,
        batch_size: int,
        memory_format: torch.memory_format = torch.contiguous_format,
        crop_padding: int = 0,
    ) -> None:
        self.split = split
        self.normalise = normalisation.on(split.images.device)
        self.batch_size = min(batch_size, len(split))
        self.memory_format = memory_format
        self.crop_padding = crop_padding

    @property
    def steps(self) -> int:
        """Batches in one pass of training. The samples of an incomplete last batch wait for another pass: BN would
        take its statistics from too few of them."""
        return len(self.split) // self.batch_size

    def shuffled(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass in an order that is a function of (seed, epoch) alone, each crop of (seed, epoch, sample)."""
        order = torch.from_numpy(generator(seed, "order", epoch).permutation(len(self.split)))
        order = order.to(self.split.labels.device)
        offsets = None
        if self.crop_padding:
            offsets = draw_offsets(len(self.split), self.crop_padding, seed, epoch).to(order.device)
        for step in range(self.steps):
            which = order[step * self.batch_size : (step + 1) * self.batch_size]
            images = self.split.images[which]
            if offsets is not None:
                images = crop_padded(images, offsets[which], self.crop_padding)
            yield self._batch(images, self.split.labels[which])

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every sample once."""
        for start in range(0, len(self.split), self.batch_size):
            end = start + self.batch_size
            yield self._batch(self.split.images[start:end], self.split.labels[start:end])

    def _batch(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.normalise(images).contiguous(memory_format=self.memory_format), labels

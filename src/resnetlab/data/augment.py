"""Augmentation, in batches on the device; what is drawn for a sample is a function of (seed, epoch, sample)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.randomness import generator


def draw_offsets(samples: int, padding: int, seed: int, epoch: int) -> Tensor:
    """Row and column, each from 0 to 2 · ``padding``, where the crop of every sample of an epoch starts: ``(N, 2)``."""
    return torch.from_numpy(generator(seed, "crop", epoch).integers(0, 2 * padding + 1, (samples, 2)))


def crop_padded(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Pictures ``(N, C, H, W)`` padded with zeros on every side, and cut to their own size at ``offsets`` ``(N, 2)``.

    The augmentation of He et al. 2015, §4.2, with 4 pixels around pictures of 32.
    """
    n, channels, height, width = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    rows = offsets[:, 0, None] + torch.arange(height, device=device)
    columns = offsets[:, 1, None] + torch.arange(width, device=device)
    sample = torch.arange(n, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]

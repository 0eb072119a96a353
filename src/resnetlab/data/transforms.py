"""Crops and mirror images, in batches on the device.

What is drawn for a sample is a function of (seed, epoch, sample): one draw for all samples of an epoch, indexed by the
samples of a batch. So neither the batch, the rank nor the process that a sample is in changes what happens to it.
"""

from dataclasses import dataclass, replace
from math import log, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.core.randomness import generator

CROP_RATIO = (3 / 4, 4 / 3)


def draw_offsets(samples: int, padding: int, seed: int, epoch: int) -> Tensor:
    """Row and column, each from 0 to 2 · ``padding``, where the crop of every sample of an epoch starts: ``(N, 2)``."""
    return torch.from_numpy(generator(seed, "crop", epoch).integers(0, 2 * padding + 1, (samples, 2)))


def draw_uniforms(samples: int, numbers: int, seed: int, purpose: str, epoch: int) -> Tensor:
    """``(N, numbers)`` in [0, 1) as float32, for one purpose in one epoch."""
    return torch.from_numpy(generator(seed, purpose, epoch).random((samples, numbers), dtype="float32"))


def crop_padded(images: Tensor, offsets: Tensor, padding: int) -> Tensor:
    """Images ``(N, C, H, W)`` padded with zeros on every side, and cut to their own size at ``offsets`` ``(N, 2)``.

    The augmentation of He et al. 2015, §4.2, with 4 pixels around images of 32.
    """
    n, _, height, width = images.shape
    # Every window of every image as a view, of which one each is copied: the inner loop runs along whole images.
    windows = F.pad(images, (padding,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(n, device=images.device), :, offsets[:, 0], offsets[:, 1]]


ALONE = 1 << 13
"""Values of an image from which on it is mirrored by itself: smaller ones take less time together."""


def flip_(images: Tensor, which: Tensor) -> Tensor:
    """Mirror left and right, in place, of the images ``(N, C, H, W)`` for which ``which`` ``(N,)`` is true."""
    if images.device.type != "cpu":
        # To count them would wait for the device.
        return images.copy_(torch.where(which[:, None, None, None], images.flip(3), images))
    chosen = which.nonzero()[:, 0]
    if images[:1].numel() < ALONE:
        return images.index_copy_(0, chosen, images.index_select(0, chosen).flip(3))
    for number in chosen.tolist():
        images[number].copy_(images[number].flip(2))
    return images


@dataclass(frozen=True, kw_only=True)
class ResizedCrop:
    """What decides the random resized crop of every sample of a split.

    ``uniforms`` ``(N, 4)`` in [0, 1), and the least and the largest share of the area (``resized_boxes``).
    """

    uniforms: Tensor
    scale: tuple[float, float]

    def to(self, device: torch.device) -> "ResizedCrop":
        return replace(self, uniforms=self.uniforms.to(device))

    def cut(self, images: Tensor, which: Tensor) -> Tensor:
        """The images ``(B, C, H, W)`` of the samples ``which``, on the device of ``uniforms``, each cut to its box."""
        _, _, height, width = images.shape
        uniforms = self.uniforms[which.to(self.uniforms.device, non_blocking=True)]
        return crop_resized(images, resized_boxes(uniforms, height, width, self.scale))


def resized_boxes(uniforms: Tensor, height: int, width: int, scale: tuple[float, float]) -> Tensor:
    """Boxes (top, left, height, width) in pixels, ``(N, 4)`` as int64, from four numbers in [0, 1) each.

    The first gives the share of the area, uniform in ``scale``; the second the ratio width / height, log-uniform in
    ``CROP_RATIO``; the others row and column, uniform over all places where the box fits. A side that comes out longer
    than the image's is cut to it, so that large shares turn out smaller, where Inception and torchvision draw up to
    ten times and then take the middle.
    """
    return fitting_boxes(uniforms, height, width, scale, CROP_RATIO)


def fitting_boxes(
    uniforms: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """``resized_boxes`` for any range of width / height; in float64, as the same sum in Python would be."""
    share, aspect, row, column = uniforms.double().unbind(1)
    area = height * width * (scale[0] + share * (scale[1] - scale[0]))
    aspect = torch.exp(log(ratio[0]) + aspect * (log(ratio[1]) - log(ratio[0])))
    tall = (area / aspect).sqrt().round().clamp(1, height)
    wide = (area * aspect).sqrt().round().clamp(1, width)
    top = (row * (height - tall + 1)).floor()
    left = (column * (width - wide + 1)).floor()
    return torch.stack([top, left, tall, wide], dim=1).long()


def require_pixels(images: Tensor, setting: str) -> None:
    """Raise ``ConfigError`` for floats, of which the augmentation ``setting`` does not know what is black and white."""
    if images.is_floating_point():
        raise ConfigError(
            f"{setting} is for images of uint8, and these are floats: give uint8, or do it in the Dataset"
        )


def crop_resized(images: Tensor, boxes: Tensor) -> Tensor:
    """Each image's own box, stretched to the size of the images ``(N, C, H, W)``, uint8 to uint8.

    Bilinear between pixel centres; what lies outside of the box has no part in it. A box is never larger than its
    image, so nothing shrinks and nothing needs a filter against aliasing.
    """
    require_pixels(images, "random_resized_crop")
    _, _, height, width = images.shape
    top, left, tall, wide = boxes.float().unbind(1)
    rows = _stretched(top, tall, height)[:, :, None].expand(-1, -1, width)
    columns = _stretched(left, wide, width)[:, None, :].expand(-1, height, -1)
    # grid_sample counts from -1 to 1, from the first pixel's outer edge to the last one's.
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=3)
    pixels = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return pixels.add_(0.5).to(torch.uint8)


def _stretched(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Where ``size`` evenly spread pixels of an interval lie, ``(N, size)``, none beyond its outermost centres."""
    steps = torch.arange(size, device=start.device) + 0.5
    inside = (steps * (length[:, None] / size) - 0.5).clamp_min(0).minimum(length[:, None] - 1)
    return start[:, None] + inside


ERASED_SHARE = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)


def erasing_boxes(uniforms: Tensor, height: int, width: int, probability: float) -> Tensor:
    """Boxes (top, left, height, width), ``(N, 4)``, from five numbers in [0, 1) each; empty where nothing is erased.

    Share of the area and ratio of the sides as in Zhong et al. 2017 (0.02 to 0.33, 0.3 to 3.3, the ratio log-uniform as
    in torchvision); a side longer than the image is cut to it. The first number decides whether.
    """
    boxes = fitting_boxes(uniforms[:, 1:], height, width, ERASED_SHARE, ERASED_RATIO)
    return boxes * (uniforms[:, :1] < probability)


def cutout_boxes(uniforms: Tensor, height: int, width: int, side: int) -> Tensor:
    """Squares of ``side`` pixels, ``(N, 4)``, from two numbers in [0, 1) each.

    The centre is any pixel of the image with equal chance, so a part of the square may lie outside (DeVries & Taylor
    2017).
    """
    centres = (uniforms.double() * torch.tensor([height, width])).long()
    return torch.cat([centres - side // 2, torch.full_like(centres, side)], dim=1)


def blank(images: Tensor, boxes: Tensor) -> Tensor:
    """A copy of the images ``(N, C, H, W)`` with 0 in each one's box."""
    top, left, tall, wide = boxes[:, :, None].unbind(1)
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top) & (rows < top + tall)
    in_columns = (columns >= left) & (columns < left + wide)
    return images.clone().masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


@dataclass(frozen=True)
class Box:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the latter two excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        return (self.bottom - self.top) * (self.right - self.left)


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """How one step mixes: ``weight`` is each image's own share; with a box, its content comes from the partner."""

    weight: float
    box: Box | None = None


def draw_mixtures(steps: int, side: int, mixup: float, cutmix: float, seed: int, epoch: int) -> list[Mixture]:
    """One mixture for every step of an epoch; where both alphas are above 0, each step takes one by an even chance."""
    rng = generator(seed, "mix", epoch)
    boxed = rng.random(steps) < (0.5 if mixup and cutmix else float(cutmix > 0))
    # Both are drawn in every step, so that a step's mixup does not depend on how often the others took cutmix.
    blended = rng.beta(mixup or 1.0, mixup or 1.0, steps)
    kept = rng.beta(cutmix or 1.0, cutmix or 1.0, steps)
    centres = rng.integers(0, side, (steps, 2))
    return [
        cut_mixture(float(kept[step]), centres[step].tolist(), side)
        if boxed[step]
        else Mixture(weight=float(blended[step]))
        for step in range(steps)
    ]


def cut_mixture(weight: float, centre: tuple[int, int], side: int) -> Mixture:
    """The mixture whose box has the share 1 - ``weight`` of a square image around ``centre``, clipped at the borders.

    Its weight is corrected by what was clipped (Yun et al. 2019, §3.2 and appendix A).
    """
    half = int(side * sqrt(1 - weight)) // 2
    (top, bottom), (left, right) = ((max(at - half, 0), min(at + half, side)) for at in centre)
    box = Box(top, bottom, left, right)
    return Mixture(weight=1 - box.area / side**2, box=box)


def partners(batch: int, device: torch.device) -> Tensor:
    """The place in the batch that each one is mixed with: 2i with 2i + 1; the last of an odd number with itself.

    Any slice of a batch that starts and ends at even places, such as a rank's share or a micro-batch, mixes just as the
    whole batch does; a permutation would not.
    """
    return (torch.arange(batch, device=device) ^ 1).clamp_max(batch - 1)


def mix_images(images: Tensor, mixture: Mixture) -> Tensor:
    """Images ``(B, C, H, W)`` mixed with their partners: averaged (Zhang et al. 2017), or boxes exchanged."""
    others = images.index_select(0, partners(len(images), images.device))
    if mixture.box is None:
        return torch.lerp(images, others, 1 - mixture.weight)
    rows = slice(mixture.box.top, mixture.box.bottom)
    columns = slice(mixture.box.left, mixture.box.right)
    mixed = images.clone()
    mixed[:, :, rows, columns] = others[:, :, rows, columns]
    return mixed


def mixed_targets(labels: Tensor, weight: float, num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Class probabilities ``(B, num_classes)``: ``weight`` of the own label's, the rest of the partner's.

    Each label's are (1 - s) · one-hot + s / num_classes with the smoothing s, as ``label_smoothing`` of cross-entropy.
    """
    own = F.one_hot(labels, num_classes).float().mul_(1 - smoothing).add_(smoothing / num_classes)
    return torch.lerp(own, own[partners(len(labels), labels.device)], 1 - weight)

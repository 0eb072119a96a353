"""RandAugment (Cubuk et al. 2019) and TrivialAugment, wide (Müller & Hutter 2021), with torchvision's strengths."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.core.randomness import generator

Operation = Callable[[Tensor, Tensor], Tensor]


def identity(images: Tensor, strength: Tensor) -> Tensor:  # noqa: ARG001
    """Nothing."""
    return images


def shear_x(images: Tensor, strength: Tensor) -> Tensor:
    """Row y, from the top, moves left by ``strength`` · y."""
    return _warp(images, xy=strength.double())


def shear_y(images: Tensor, strength: Tensor) -> Tensor:
    """Column x, from the left, moves up by ``strength`` · x."""
    return _warp(images, yx=strength.double())


def translate_x(images: Tensor, strength: Tensor) -> Tensor:
    """Move right by ``strength`` pixels, without its fraction."""
    return _warp(images, x0=-strength.double().trunc())


def translate_y(images: Tensor, strength: Tensor) -> Tensor:
    """Move down by ``strength`` pixels, without its fraction."""
    return _warp(images, y0=-strength.double().trunc())


def rotate(images: Tensor, strength: Tensor) -> Tensor:
    """Turn by ``strength`` degrees around the middle, against the clock."""
    angle = torch.deg2rad(strength.double())
    cos, sin = angle.cos(), angle.sin()
    x, y = images.shape[3] / 2, images.shape[2] / 2
    return _warp(images, xx=cos, xy=-sin, x0=x - x * cos + y * sin, yx=sin, yy=cos, y0=y - x * sin - y * cos)


def _warp(
    images: Tensor,
    *,
    xx: Tensor | float = 1.0,
    xy: Tensor | float = 0.0,
    x0: Tensor | float = 0.0,
    yx: Tensor | float = 0.0,
    yy: Tensor | float = 1.0,
    y0: Tensor | float = 0.0,
) -> Tensor:
    """The pixel at (x, y) becomes the one that (xx · x + xy · y + x0, yx · x + yy · y + y0) lies in, or 0 outside.

    In whole 65536ths of a pixel, as in Pillow: points on the edge of two pixels are many, and fall to the same one.
    """
    n, channels, height, width = images.shape
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    column = (_fixed(xx) * x + _fixed(xy) * y + _fixed(x0 + 0.5 * xx + 0.5 * xy)) >> 16
    row = (_fixed(yx) * x + _fixed(yy) * y + _fixed(y0 + 0.5 * yx + 0.5 * yy)) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).expand(n, height, width).flatten(1)
    found = images.flatten(2).gather(2, place[:, None].expand(-1, channels, -1)).view_as(images)
    return found.mul_(inside.view(-1, 1, height, width))


def _fixed(value: Tensor | float) -> Tensor | int:
    """In 65536ths, rounded; of a tensor ``(B,)`` as ``(B, 1, 1)``."""
    if isinstance(value, Tensor):
        return (value * 65536 + 0.5).floor().long()[:, None, None]
    return floor(value * 65536 + 0.5)


def brightness(images: Tensor, strength: Tensor) -> Tensor:
    """1 + ``strength`` times as bright."""
    return _blend(0.0, images, strength)


def color(images: Tensor, strength: Tensor) -> Tensor:
    """1 + ``strength`` times as far from grey; nothing for grey images."""
    return images if images.shape[1] == 1 else _blend(_grey(images), images, strength)


def contrast(images: Tensor, strength: Tensor) -> Tensor:
    """1 + ``strength`` times as far from the mean grey of the image."""
    grey = _grey(images).flatten(1)
    # Halves are rounded up, in whole numbers: a mean in float32 would depend on the order of its sum.
    mean = (2 * grey.sum(1) + grey.shape[1]) // (2 * grey.shape[1])
    return _blend(mean.float()[:, None, None, None], images, strength)


def sharpness(images: Tensor, strength: Tensor) -> Tensor:
    """1 + ``strength`` times as far from the smoothed image, whose outermost pixels stay."""
    wide = images.to(torch.int16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
    smooth = images.float()
    # A thirteenth of a whole number is never half-way between two, so any precision rounds it alike.
    smooth[:, :, 1:-1, 1:-1] = ((total + 6.5) / 13).floor()
    return _blend(smooth, images, strength)


def _blend(base: Tensor | float, images: Tensor, strength: Tensor) -> Tensor:
    """base + (1 + strength) · (images - base) in float32, cut off at 0 and 255 and to whole numbers (Image.blend)."""
    return (base + (1 + strength)[:, None, None, None] * (images - base)).clamp_(0, 255).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """ITU-R 601 luma in Pillow's fixed point, ``(B, 1, H, W)`` as int32."""
    values = images.int()
    if images.shape[1] == 1:
        return values
    red, green, blue = values[:, 0:1], values[:, 1:2], values[:, 2:3]
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16


def posterize(images: Tensor, strength: Tensor) -> Tensor:
    """Keep the ``strength`` highest bits of each value."""
    kept = (0xFF << (8 - strength.int())) & 0xFF
    return images & kept.to(torch.uint8)[:, None, None, None]


def solarize(images: Tensor, strength: Tensor) -> Tensor:
    """Invert values of ``strength`` or more."""
    least = strength.ceil().to(torch.uint8)[:, None, None, None]  # among whole numbers the same, and compared as bytes
    return torch.where(images >= least, 255 - images, images)


def autocontrast(images: Tensor, strength: Tensor) -> Tensor:  # noqa: ARG001
    """Stretch each channel from its least and largest value to 0 and 255; a constant channel stays."""
    low, high = (bound.double() for bound in images.aminmax(dim=3))
    low, high = low.amin(2)[..., None, None], high.amax(2)[..., None, None]
    scale = torch.full_like(high, 255) / (high - low).clamp_min(1)  # 255 / tensor is rounded twice
    stretched = (images * scale - low * scale).clamp_(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, strength: Tensor) -> Tensor:  # noqa: ARG001
    """Spread each channel's values so that all are about equally frequent."""
    pixels = images.flatten(2).long()
    counts = torch.zeros(*pixels.shape[:2], 256, dtype=torch.int64, device=images.device)
    counts.scatter_add_(2, pixels, torch.ones_like(pixels))
    last = counts.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - last) // 255
    before = F.pad(counts.cumsum(2)[..., :-1], (1, 0))
    levels = ((before + step // 2) // step.clamp_min(1)).clamp_(max=255).to(torch.uint8)
    return torch.where(step[..., None] > 0, levels.gather(2, pixels).view_as(images), images)


BINS = 31
OPERATIONS: tuple[Operation, ...] = (
    identity,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    color,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
)
SIGNED = frozenset(OPERATIONS[1:10])
"""Operations whose strength is as often negative as positive."""


@dataclass(frozen=True, kw_only=True)
class PolicyDraws:
    """Which operations every sample of an epoch goes through, one after the other, and how strongly.

    ``chosen`` ``(N, n)`` are places in ``OPERATIONS`` and stay on the CPU, where batches are grouped by them; a device
    would have to be waited for. ``strengths`` ``(N, n)`` is float32.
    """

    chosen: Tensor
    strengths: Tensor

    def to(self, device: torch.device) -> "PolicyDraws":
        return replace(self, strengths=self.strengths.to(device))


def rand_strengths(side: int) -> Tensor:
    """The strengths of RandAugment by operation and magnitude, ``(14, 31)``, for images of that side."""
    return _strengths(shear=0.3, shift=150 / 331 * side, angle=30, change=0.9, lost_bits=4)


def trivial_strengths() -> Tensor:
    """The strengths of TrivialAugment by operation and magnitude, ``(14, 31)``; shifts are up to 32 pixels."""
    return _strengths(shear=0.99, shift=32, angle=135, change=0.99, lost_bits=6)


def _strengths(shear: float, shift: float, angle: float, change: float, lost_bits: int) -> Tensor:
    rising = [0.0, shear, shear, shift, shift, angle, change, change, change, change]
    bits = 8 - (torch.arange(BINS) / ((BINS - 1) / lost_bits)).round()
    return torch.stack(
        [torch.linspace(0, most, BINS) for most in rising]
        + [bits, torch.linspace(255, 0, BINS), torch.zeros(BINS), torch.zeros(BINS)]
    )


def draw_rand(samples: int, count: int, magnitude: int, side: int, seed: int, epoch: int) -> PolicyDraws:
    """``count`` operations for every sample, each any with equal chance, all at one magnitude from 0 to 30."""
    rng = generator(seed, "policy", epoch)
    chosen = torch.from_numpy(rng.integers(0, len(OPERATIONS), (samples, count), dtype="uint8"))
    negative = torch.from_numpy(rng.random((samples, count), dtype="float32")) < 0.5
    return _draws(chosen, rand_strengths(side)[:, magnitude][chosen.long()], negative)


def draw_trivial(samples: int, seed: int, epoch: int) -> PolicyDraws:
    """One operation for every sample at any magnitude, both with equal chance."""
    rng = generator(seed, "policy", epoch)
    chosen = torch.from_numpy(rng.integers(0, len(OPERATIONS), (samples, 1), dtype="uint8"))
    negative = torch.from_numpy(rng.random((samples, 1), dtype="float32")) < 0.5
    magnitude = torch.from_numpy(rng.integers(0, BINS, (samples, 1), dtype="uint8"))
    return _draws(chosen, trivial_strengths()[chosen.long(), magnitude.long()], negative)


def _draws(chosen: Tensor, strengths: Tensor, negative: Tensor) -> PolicyDraws:
    signed = torch.tensor([operation in SIGNED for operation in OPERATIONS])[chosen.long()]
    return PolicyDraws(chosen=chosen, strengths=torch.where(signed & negative, -strengths, strengths))


def apply_policy(images: Tensor, chosen: Tensor, strengths: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` as uint8 after each one's own operations ``(B, n)``, of which ``chosen`` is on the CPU.

    The images of a batch that share an operation go through it together.
    """
    for layer in range(chosen.shape[1]):
        images = _apply_layer(images, chosen[:, layer], strengths[:, layer])
    return images


def _apply_layer(images: Tensor, chosen: Tensor, strengths: Tensor) -> Tensor:
    counts = torch.bincount(chosen, minlength=len(OPERATIONS)).tolist()
    order = chosen.argsort(stable=True)
    here, back = (places.to(images.device, non_blocking=True) for places in (order, order.argsort()))
    # index_select copies whole images, where images[here] goes value by value: twenty times as long on a CPU.
    groups = (torch.split(values.index_select(0, here), counts) for values in (images, strengths))
    done = [
        operation(group, strength) for operation, group, strength in zip(OPERATIONS, *groups, strict=True) if len(group)
    ]
    return torch.cat(done).index_select(0, back)

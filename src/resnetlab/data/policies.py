"""RandAugment (Cubuk et al. 2019) and TrivialAugment, wide (Müller & Hutter 2021), with torchvision's strengths."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from resnetlab.data import operations
from resnetlab.data.operations import Operation
from resnetlab.core.randomness import generator

BINS = 31
OPERATIONS: tuple[Operation, ...] = (
    operations.identity,
    operations.shear_x,
    operations.shear_y,
    operations.translate_x,
    operations.translate_y,
    operations.rotate,
    operations.brightness,
    operations.color,
    operations.contrast,
    operations.sharpness,
    operations.posterize,
    operations.solarize,
    operations.autocontrast,
    operations.equalize,
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
    """The strengths of RandAugment by operation and magnitude, ``(14, 31)``, for pictures of that side."""
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
    """Pictures ``(B, C, H, W)`` as uint8 after each one's own operations ``(B, n)``, of which ``chosen`` is on the CPU.

    The pictures of a batch that share an operation go through it together.
    """
    for layer in range(chosen.shape[1]):
        images = _apply_layer(images, chosen[:, layer], strengths[:, layer])
    return images


def _apply_layer(images: Tensor, chosen: Tensor, strengths: Tensor) -> Tensor:
    counts = torch.bincount(chosen, minlength=len(OPERATIONS)).tolist()
    order = chosen.argsort(stable=True)
    here, back = (places.to(images.device, non_blocking=True) for places in (order, order.argsort()))
    # index_select copies whole pictures, where images[here] goes value by value: twenty times as long on a CPU.
    groups = (torch.split(values.index_select(0, here), counts) for values in (images, strengths))
    done = [
        operation(group, strength) for operation, group, strength in zip(OPERATIONS, *groups, strict=True) if len(group)
    ]
    return torch.cat(done).index_select(0, back)

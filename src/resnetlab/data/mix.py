"""Mixup and cutmix: each picture with its neighbour in the batch, and their targets alike."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from resnetlab.core.randomness import generator


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
    """How one step mixes: ``weight`` is each picture's own share; with a box, its content comes from the partner."""

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
    """The mixture whose box has the share 1 - ``weight`` of a square picture around ``centre``, clipped at the borders.

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
    """Pictures ``(B, C, H, W)`` mixed with their partners: averaged (Zhang et al. 2017), or boxes exchanged."""
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

"""Gradients by depth as records, and the verdict on them by printed thresholds: vanishing, exploding or healthy."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from typing import Literal

ORDERS = 2.0
"""Orders of magnitude between the two ends of the net from which on gradients count as exploding or vanishing."""

RULE = (
    "The relative gradient ‖∇W‖/‖W‖ of every block, on a log scale, is fitted by a line over depth; the change along "
    f"it from the last block to the first is the growth. Above +{ORDERS:g} orders of magnitude: exploding; below "
    f"−{ORDERS:g}: vanishing; between: healthy. A norm that is not a finite number: broken; one that is exactly zero, "
    "as where branches start at zero: silent."
)


@dataclass(frozen=True, kw_only=True)
class BlockGradient:
    """‖∇W‖ and ‖W‖ (L2, over the weights of one block's convolutions and matrices) for one batch.

    None stands for a norm that is not a finite number: the signal overflowed on its way through the net.
    """

    block: str
    gradient_norm: float | None
    weight_norm: float | None

    @property
    def relative(self) -> float | None:
        """‖∇W‖ / ‖W‖; None where it is not a finite number."""
        return self.gradient_norm / self.weight_norm if self.gradient_norm is not None and self.weight_norm else None


@dataclass(frozen=True, kw_only=True)
class GradientMoment:
    """The gradient over depth after ``step`` steps of the optimizer, for one batch.

    ``first`` and ``last`` are ‖∇W‖/‖W‖ of the first and the last block, ``growth`` is that of ``Flow``. None where a
    number is not finite, and the growth also where a gradient is zero. The rest is measured on demand:

    - ``correlation`` is the cosine between ∂L/∂x of an image and of its neighbour, x the first block's input, averaged
      over the batch (Balduzzi et al. 2017, arXiv:1702.08591). The neighbour lies ``train.moments.DISTANCE`` · ‖image‖
      away. 1 where the loss bends nowhere in between, 0 for gradients that are white noise.
    - ``agreement`` is the cosine between the gradients of the two halves of the batch, over all weights.
    - ``change`` is ‖W' - W‖/‖W‖ of the last step over all weights, ``largest_change`` the largest one of a block.
    - ``rank`` is the effective rank of the last block's output less its mean (Roy & Vetterli 2007), at most the images
      less 1.
    """

    step: int
    first: float | None
    last: float | None
    growth: float | None
    correlation: float | None = None
    agreement: float | None = None
    change: float | None = None
    largest_change: float | None = None
    rank: float | None = None


@dataclass(frozen=True, kw_only=True)
class Flow:
    """How the relative gradient of a net's blocks changes over depth, and the verdict on it.

    ``growth`` is in orders of magnitude from the last block to the first, the way that gradients travel; None where a
    norm is zero or not finite. ``RULE`` says how the verdict is made.
    """

    growth: float | None
    verdict: Literal["exploding", "vanishing", "healthy", "silent", "broken"]


def judge(gradients: Sequence[BlockGradient]) -> Flow:
    """Growth of the relative gradient along the blocks, and the verdict by ``RULE``.

    growth = -slope · (blocks - 1), where slope is the least-squares change of log10(‖∇W‖/‖W‖) per block. The stem and
    the head, which have no block's shape, are left out where there are blocks.
    """
    relative = [block.relative for block in _blocks(gradients)]
    if None in relative:
        return Flow(growth=None, verdict="broken")
    if any(value is not None and value <= 0 for value in relative):
        return Flow(growth=None, verdict="silent")
    logs = [log10(value) for value in relative if value]
    growth = -_slope(logs) * (len(logs) - 1)
    if growth > ORDERS:
        return Flow(growth=growth, verdict="exploding")
    return Flow(growth=growth, verdict="vanishing" if growth < -ORDERS else "healthy")


def moment(step: int, gradients: Sequence[BlockGradient]) -> GradientMoment:
    """The moment after ``step`` steps: the relative gradient at both ends of the blocks, and its growth."""
    blocks = _blocks(gradients)
    return GradientMoment(step=step, first=blocks[0].relative, last=blocks[-1].relative, growth=judge(gradients).growth)


def _blocks(gradients: Sequence[BlockGradient]) -> list[BlockGradient]:
    return [gradient for gradient in gradients if gradient.block.startswith("stages.")] or list(gradients)


def _slope(values: Sequence[float]) -> float:
    """Least-squares slope over 0, 1, …, n - 1; 0 for fewer than two values."""
    n = len(values)
    centre = (n - 1) / 2
    squares = sum((i - centre) ** 2 for i in range(n))
    return sum((i - centre) * value for i, value in enumerate(values)) / squares if n > 1 else 0.0

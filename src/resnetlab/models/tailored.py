"""Tailored ReLU: the leaky ReLU whose slope keeps inputs of a deep plain net apart (TAT, Zhang et al. 2022)."""

from functools import cache
from math import acos, pi, sqrt

from torch import Tensor, nn
from torch.nn import functional as F

ETA = 0.9
"""Cosine that the whole net makes of 0 at initialisation (Zhang et al. 2022, §4.1, who find 0.8 to 0.95 as good)."""


class TailoredReLU(nn.Module):
    """φ(x) = √(2 / (1 + α²)) · LeakyReLU_α(x), which keeps the mean square of normal values.

    Zhang et al. 2022, arXiv:2203.08120, §4.1. ``slope`` is α, from 0 (√2 · ReLU) to 1 (the identity).
    """

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.gain = sqrt(2 / (1 + slope**2))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) * self.gain

    def extra_repr(self) -> str:
        return f"slope={self.slope!r}"


def c_map(cosine: float, slope: float, depth: int = 1) -> float:
    """The cosine of two signals behind ``depth`` wide layers W, φ, where it is ``cosine`` before them.

    C(c) = c + (1 − α)² / (π(1 + α²)) · (√(1 − c²) − c · arccos c), once a layer (Zhang et al. 2022, eq. 8).
    """
    strength = (1 - slope) ** 2 / (pi * (1 + slope**2))
    for _ in range(depth):
        cosine = min(1.0, cosine + strength * (sqrt(1 - cosine**2) - cosine * acos(cosine)))
    return cosine


@cache
def solve_slope(depth: int, eta: float = ETA) -> float:
    """The slope α with which the C map of ``depth`` nonlinearities takes 0 to ``eta``, rounded to nine digits.

    Zhang et al. 2022, §4.1. A net so shallow that even a ReLU takes 0 to less than ``eta`` has α = 0.
    """
    if c_map(0, 0, depth) <= eta:
        return 0.0
    from scipy.optimize import brentq

    # Rounded, so that another version of scipy finds the same activation.
    return round(float(brentq(lambda slope: c_map(0, slope, depth) - eta, 0, 1, xtol=1e-12)), 9)

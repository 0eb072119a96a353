"""The layers that branches and stems are made of, by name: norms, activations, squeeze-and-excitation, drops."""

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from resnetlab.core.errors import ConfigError, require, require_choice

Norm = Literal["batch", "group", "none"]

GROUP_CHANNELS = 16
"""Channels in each group of a group norm (Wu & He 2018, arXiv:1803.08494, Table 3: 16 channels do as well as any)."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def make_norm(norm: Norm, channels: int, *, eps: float = 1e-5, groups: int | None = None) -> nn.Module:
    """The norm of maps ``(N, channels, H, W)``; ``"none"`` is the identity, without parameters.

    A group norm has ``groups`` groups; where not given, 16 channels a group, or as near to it as divides ``channels``.
    ``eps`` is added to the variance. Raises ``ConfigError`` where ``groups`` does not divide ``channels``.
    """
    require_choice("norm", norm, get_args(Norm))
    if norm == "batch":
        return nn.BatchNorm2d(channels, eps=eps)
    if norm == "none":
        return nn.Identity()
    if groups is not None:
        require(channels % groups == 0, "norm_groups", groups, f"a divisor of each width, such as {channels}")
        return nn.GroupNorm(groups, channels, eps=eps)
    wanted = max(1, channels // GROUP_CHANNELS)
    groups = next(number for number in range(wanted, 0, -1) if channels % number == 0)
    return nn.GroupNorm(groups, channels, eps=eps)


def make_activation(name: str) -> nn.Module:
    """The activation g of that name, out of place."""
    require_choice("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]()


class SqueezeExcite(nn.Module):
    """x · sigmoid(W2 relu(W1 mean(x))), a weight for each channel (Hu et al. 2017, arXiv:1709.01507, eq. 2 to 4).

    Shape: ``(N, C, H, W)`` to the same; W1 has C / ``reduction`` rows, rounded to a multiple of 8.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if reduction < 1:
            raise ConfigError(f"se_reduction={reduction} is not possible: it must be at least 1")
        hidden = round_to_eight(channels / reduction)
        self.fc1 = nn.Conv2d(channels, hidden, kernel_size=1)
        self.relu = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.fc2(self.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))
        return x * weights


def round_to_eight(channels: float) -> int:
    """The nearest multiple of 8, at least 8, and never less than nine tenths of ``channels`` (as timm rounds)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class StochasticDepth(nn.Module):
    """Zero for a sample with probability p, else x / (1 - p); in eval mode x (Huang et al. 2016, arXiv:1603.09382).

    Dividing while training, rather than multiplying in eval mode as the paper does, leaves eval mode free of p. One
    draw for each sample of ``(N, …)``.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.rand([x.shape[0]] + [1] * (x.dim() - 1), device=x.device) >= self.p
        return x * kept / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


class Multiplier(nn.Module):
    """α · x with one learned number α, which starts at ``start``: 0 for ReZero and SkipInit, 1 for Fixup.

    Bachlechner et al. 2020, arXiv:2003.04887, eq. 1; De & Smith 2020, arXiv:2002.10444, §3; Zhang et al. 2019,
    arXiv:1901.09321, §2.
    """

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.weight = nn.Parameter(torch.full((1,), start))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


class ScalarBias(nn.Module):
    """x + b with one learned number b for all channels and places, which starts at 0 (Zhang et al. 2019, §2, rule 3).

    Before a convolution it is no bias of that convolution: the zeros that pad the map do not get it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class ScalarAffine(Multiplier):
    """α · x + b with two learned numbers, the end of Fixup's branches; α starts at 1 and b at 0."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x + self.bias

"""Blocks: branch F, shortcut S, and the one place where they are added.

Every network of the zoo but VGG is made of ``ResidualBlock``; basic, bottleneck and fully connected are branches.
"""

from typing import Literal

from torch import Tensor, nn

from resnetlab.errors import require_choice

FcNorm = Literal["none", "batch", "layer"]
StrideIn = Literal["3x3", "1x1"]

_FC_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}


class ResidualBlock(nn.Module):
    """y = g(F(x) + S(x)); without a shortcut the plain block y = g(F(x)) of the same parameter names.

    He et al. 2015, arXiv:1512.03385, eq. 1 and 2; the addition comes before the activation (post-activation order).
    The sum is a new tensor, so a hook that keeps what the branch returned keeps true values.

    ``branch`` maps ``(N, C, H, W)`` to ``(N, C', H', W')`` and ``shortcut`` maps to the same shape. ``activation`` is
    g: ReLU by default; ``nn.Identity`` gives the sum of a pre-activation block.
    """

    def __init__(self, branch: nn.Module, shortcut: nn.Module | None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.activation = nn.ReLU() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.branch(x)
        out: Tensor = self.activation(residual if self.shortcut is None else residual + self.shortcut(x))
        return out


class Branch(nn.Module):
    """F: what a block computes beside its shortcut. ``expansion`` is its output channels over its width."""

    expansion = 1


class BasicBranch(Branch):
    """F(x) = BN(W2 * relu(BN(W1 * x))) with 3×3 convolutions (Figure 5, left).

    Shape: ``(N, C, H, W)`` to ``(N, width, ⌈H/s⌉, ⌈W/s⌉)``; the stride s is in the first convolution.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return out


class BottleneckBranch(Branch):
    """F(x) = BN(W3 * relu(BN(W2 * relu(BN(W1 * x))))) with 1×1, 3×3 and 1×1 convolutions (Figure 5, right).

    Shape: ``(N, C, H, W)`` to ``(N, 4·width, ⌈H/s⌉, ⌈W/s⌉)``. The stride s is in the 3×3 convolution, as torchvision
    has it ("v1.5"), or in the first 1×1 convolution, as the paper has it (``stride_in="1x1"``).
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1, stride_in: StrideIn = "3x3") -> None:
        super().__init__()
        require_choice("stride_in", stride_in, ("3x3", "1x1"))
        first, second = (1, stride) if stride_in == "3x3" else (stride, 1)
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=1, stride=first, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=second, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width * self.expansion, kernel_size=1, bias=False)
        self.norm3 = nn.BatchNorm2d(width * self.expansion)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.relu(self.norm1(self.conv1(x)))
        out = self.relu(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(out))
        return out


class FcBranch(Branch):
    """F(a[l]) = z[l+2], where z[l+1] = W[l+1] a[l] + b[l+1], a[l+1] = g(z[l+1]), z[l+2] = W[l+2] a[l+1] + b[l+2].

    Shape: ``(N, n)`` to ``(N, width)``. With ``norm="batch"`` or ``"layer"`` each z is normalised where it arises.
    ``activation`` is g, ReLU by default.
    """

    def __init__(
        self, in_channels: int, width: int, norm: FcNorm = "none", activation: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_channels, width)
        self.norm1 = make_fc_norm(norm, width)
        self.activation = nn.ReLU() if activation is None else activation
        self.linear2 = nn.Linear(width, width)
        self.norm2 = make_fc_norm(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm1(self.linear1(x)))
        out = self.norm2(self.linear2(out))
        return out


def make_fc_norm(norm: FcNorm, features: int) -> nn.Module:
    """The normalisation of a vector ``(N, features)``: ``"none"``, ``"batch"`` or ``"layer"``."""
    require_choice("norm", norm, _FC_NORMS)
    return _FC_NORMS[norm](features)


def last_scale(branch: nn.Module) -> nn.Parameter:
    """The parameter that F is proportional to where every bias is zero: the last norm's scale, or the last weight.

    Zero there makes F zero, so that the block starts as the identity (Goyal et al. 2017, arXiv:1706.02677, §5.1).
    """
    weights = [getattr(module, "weight", None) for module in branch.children()]
    return [weight for weight in weights if isinstance(weight, nn.Parameter)][-1]


BRANCHES: dict[str, type[Branch]] = {"basic": BasicBranch, "bottleneck": BottleneckBranch, "fc": FcBranch}

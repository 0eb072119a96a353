"""Blocks: branch F, shortcut S, and the one place where they are added.

Every network of the zoo but VGG is made of ``ResidualBlock``; basic, bottleneck and fully connected are branches, and
every variant (order, norm, groups, squeeze-and-excitation …) is an argument of theirs.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from resnetlab.core.errors import require, require_choice, require_literals
from resnetlab.models.layers import (
    ACTIVATIONS,
    Multiplier,
    Norm,
    ScalarAffine,
    ScalarBias,
    SqueezeExcite,
    StochasticDepth,
    make_activation,
    make_norm,
)
from resnetlab.models.shortcuts import IdentityShortcut

FcNorm = Literal["none", "batch", "layer"]
Order = Literal["post", "pre"]
StrideIn = Literal["3x3", "1x1"]
StrideAt = Literal["first", "last"]
Scaling = Literal["none", "rezero", "skipinit", "fixup", "fixup_scalar"]
FcScaling = Literal["none", "rezero"]

_FC_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm, "none": nn.Identity}


@dataclass(frozen=True, kw_only=True)
class BlockStyle:
    """What all convolutional blocks of a network have in common.

    - ``order``: ``"post"``, activation behind the sum; ``"pre"``, norm and activation before each convolution (He et
      al. 2016, arXiv:1603.05027).
    - ``norm``: ``"batch"``, ``"group"`` or ``"none"``; ``norm_eps`` is added to its variance, and ``norm_groups`` is
      the number of groups of every group norm, where they are not of 16 channels each.
    - ``scaling`` puts a learned number α behind each branch: ``"rezero"``, y = g(S(x) + α F(x)) with an α that starts
      at 0, beside any norm (Bachlechner et al. 2020, arXiv:2003.04887, eq. 1). The others keep the signal of a
      norm-free net bounded: ``"skipinit"``, the same equation; ``"fixup"``; or ``"fixup_scalar"``, which has the biases
      of Fixup's authors: one number before and one behind each convolution, where ``"fixup"`` has one a channel.
    - ``activation``: g by name. ``conv_bias``: biases in convolutions, which a norm behind them makes idle; with
      ``bias_before_norm`` off, only where no norm follows at once.
    - ``stride_in``: where a bottleneck has its stride, in the 3×3 convolution, as torchvision has it ("v1.5"), or in
      the first 1×1 convolution, as the paper has it.
    - ``groups`` and ``base_width``: a bottleneck's 3×3 convolution has ``groups`` groups of ``base_width``/64 of the
      stage's width (ResNeXt, Xie et al. 2016, arXiv:1611.05431; Wide ResNet-50-2 with base_width 128).
    - ``dropout``: its probability before the last convolution (Zagoruyko & Komodakis 2016, arXiv:1605.07146, §2.4).
    - ``se_reduction``: squeeze-and-excitation with that reduction; 0 for none.

    Raises ``ConfigError`` for values that make no block.
    """

    order: Order = "post"
    norm: Norm = "batch"
    norm_eps: float = 1e-5
    norm_groups: int | None = None
    scaling: Scaling = "none"
    activation: str = "relu"
    conv_bias: bool = False
    bias_before_norm: bool = True
    stride_in: StrideIn = "3x3"
    groups: int = 1
    base_width: int = 64
    dropout: float = 0.0
    se_reduction: int = 0

    def __post_init__(self) -> None:
        require_literals(self)
        require_choice("activation", self.activation, ACTIVATIONS)
        require(0 < self.norm_eps < 1, "norm_eps", self.norm_eps, "a number between 0 and 1, usually 1e-5")
        require(self.norm_groups is None or self.norm_groups >= 1, "norm_groups", self.norm_groups, "at least 1")
        require(self.groups >= 1, "groups", self.groups, "at least 1")
        require(self.base_width >= 1, "base_width", self.base_width, "at least 1")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a probability, 0 ≤ p < 1")
        require(self.se_reduction >= 0, "se_reduction", self.se_reduction, "0 or more")

    def bias(self, *, before_norm: bool = True) -> bool:
        """Whether a convolution has a bias for each channel: where asked for, and where no norm shifts in its place."""
        if self.norm == "none":
            return self.scaling != "fixup_scalar"
        return self.conv_bias and (self.bias_before_norm or not before_norm)

    def make_norm(self, channels: int) -> nn.Module:
        """The norm of maps ``(N, channels, H, W)``; in its place Fixup's authors add one number."""
        if self.scaling == "fixup_scalar":
            return ScalarBias()
        return make_norm(self.norm, channels, eps=self.norm_eps, groups=self.norm_groups)

    def make_nonlinearity(self) -> nn.Module:
        """The activation g alone."""
        return make_activation(self.activation)

    def make_activation(self) -> nn.Module:
        """The activation between two convolutions of a branch; Fixup's authors add one number behind it."""
        act = self.make_nonlinearity()
        if self.scaling == "fixup_scalar":
            return nn.Sequential(OrderedDict(act=act, shift=ScalarBias()))
        return act


class ResidualBlock(nn.Module):
    """y = g(F(x) + S(x)); without a shortcut the plain block y = g(F(x)) of the same parameter names.

    With a ``gate`` it is y = g(t F(x) + c S(x)), where t and c are what the gate makes of what the shortcut reads.

    He et al. 2015, arXiv:1512.03385, eq. 1 and 2; the addition comes before the activation (post-activation order).
    The sum is a new tensor, so a hook that keeps what the branch returned keeps true values.

    With a ``preactivation`` p (norm and activation) it is the pre-activation block y = x + F(p(x)), g the identity (He
    et al. 2016, arXiv:1603.05027, Figure 1b). Where the shape changes, branch *and* shortcut read p(x), as in the
    authors' code: y = S(p(x)) + F(p(x)).

    ``branch`` maps ``(N, C, H, W)`` to ``(N, C', H', W')`` and ``shortcut`` maps to the same shape. ``activation`` is
    g, ReLU by default. ``drop`` is the probability with which training skips the branch for a sample.
    """

    def __init__(
        self,
        branch: nn.Module,
        shortcut: nn.Module | None,
        activation: nn.Module | None = None,
        preactivation: nn.Module | None = None,
        drop: float = 0.0,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.preactivation = nn.Identity() if preactivation is None else preactivation
        self.branch = branch
        self.drop = StochasticDepth(drop)
        self.shortcut = shortcut
        # An identity carries x itself; p(x) would not be the input any more. Asked here, since torch.jit.script takes a
        # subclass for another class.
        self.carries_input = isinstance(shortcut, IdentityShortcut)
        self.gate = gate
        self.activation = nn.ReLU() if activation is None else activation

    def forward(self, x: Tensor) -> Tensor:
        activated = self.preactivation(x)
        out: Tensor = self.drop(self.branch(activated))
        if self.shortcut is not None:
            read = x if self.carries_input else activated
            carried = self.shortcut(read)
            if self.gate is not None:
                out, carried = self.gate(read, out, carried)
            out = out + carried
        out = self.activation(out)
        return out


class Branch(nn.Module):
    """F: what a block computes beside its shortcut. ``expansion`` is its output channels over its width."""

    expansion = 1


class BasicBranch(Branch):
    """F(x) = BN(W2 * relu(BN(W1 * x))) with 3×3 convolutions (Figure 5, left).

    Shape: ``(N, C, H, W)`` to ``(N, width, ⌈H/s⌉, ⌈W/s⌉)``; the stride s is in the first convolution. In pre-activation
    order the last norm is left out: the next block has it in its preactivation.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1, style: BlockStyle | None = None) -> None:
        super().__init__()
        style = style or BlockStyle()
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=3, stride=stride, padding=1, bias=style.bias())
        self.norm1 = style.make_norm(width)
        self.act1 = style.make_activation()
        self.dropout = nn.Dropout(style.dropout)
        last_bias = style.bias(before_norm=style.order == "post")
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=last_bias)
        self.norm2 = make_last_norm(style, width)
        self.se = make_squeeze(style, width)
        self.scale = make_scale(style)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act1(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(self.dropout(out)))
        out = self.scale(self.se(out))
        return out


class BottleneckBranch(Branch):
    """F(x) = BN(W3 * relu(BN(W2 * relu(BN(W1 * x))))) with 1×1, 3×3 and 1×1 convolutions (Figure 5, right).

    Shape: ``(N, C, H, W)`` to ``(N, 4·width, ⌈H/s⌉, ⌈W/s⌉)``. ``style`` says where the stride s is, and how wide and in
    how many groups the 3×3 convolution is. With ``inner_width`` the three have that width within, and ``width`` itself
    is that of the output.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        style: BlockStyle | None = None,
        inner_width: int | None = None,
    ) -> None:
        super().__init__()
        style = style or BlockStyle()
        first, second = (1, stride) if style.stride_in == "3x3" else (stride, 1)
        inner = (inner_width or width * style.base_width // 64) * style.groups
        out_channels = width if inner_width else width * self.expansion
        self.conv1 = nn.Conv2d(in_channels, inner, kernel_size=1, stride=first, bias=style.bias())
        self.norm1 = style.make_norm(inner)
        self.act1 = style.make_activation()
        self.conv2 = nn.Conv2d(
            inner, inner, kernel_size=3, stride=second, padding=1, groups=style.groups, bias=style.bias()
        )
        self.norm2 = style.make_norm(inner)
        self.act2 = style.make_activation()
        self.dropout = nn.Dropout(style.dropout)
        last_bias = style.bias(before_norm=style.order == "post")
        self.conv3 = nn.Conv2d(inner, out_channels, kernel_size=1, bias=last_bias)
        self.norm3 = make_last_norm(style, out_channels)
        self.se = make_squeeze(style, out_channels)
        self.scale = make_scale(style)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act1(self.norm1(self.conv1(x)))
        out = self.act2(self.norm2(self.conv2(out)))
        out = self.norm3(self.conv3(self.dropout(out)))
        out = self.scale(self.se(out))
        return out


def make_last_norm(style: BlockStyle, channels: int) -> nn.Module:
    """The norm behind a branch's last convolution; the identity in pre-activation order and without a norm."""
    return nn.Identity() if style.order == "pre" or style.norm == "none" else style.make_norm(channels)


def make_squeeze(style: BlockStyle, channels: int) -> nn.Module:
    """Squeeze-and-excitation, or the identity where ``se_reduction`` is 0."""
    return SqueezeExcite(channels, style.se_reduction) if style.se_reduction else nn.Identity()


def make_scale(style: BlockStyle) -> nn.Module:
    """The learned factor behind a branch, or the identity."""
    if style.scaling == "none":
        return nn.Identity()
    if style.scaling == "fixup_scalar":
        return ScalarAffine()
    return Multiplier(start=0.0 if style.scaling in ("rezero", "skipinit") else 1.0)


def make_preactivation(style: BlockStyle, channels: int) -> nn.Sequential:
    """Norm and activation before a pre-activation block, and behind the last one."""
    return nn.Sequential(OrderedDict(norm=style.make_norm(channels), act=style.make_nonlinearity()))


class FcBranch(Branch):
    """F(a[l]) = z[l+2], where z[l+1] = W[l+1] a[l] + b[l+1], a[l+1] = g(z[l+1]), z[l+2] = W[l+2] a[l+1] + b[l+2].

    Shape: ``(N, n)`` to ``(N, width)``. With ``norm="batch"`` or ``"layer"`` each z is normalised where it arises.
    ``activation`` is g, ReLU by default. With ``scaling="rezero"`` it is α z[l+2], with a learned α that starts at 0.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        norm: FcNorm = "none",
        activation: nn.Module | None = None,
        scaling: FcScaling = "none",
    ) -> None:
        super().__init__()
        self.linear1 = nn.Linear(in_channels, width)
        self.norm1 = make_fc_norm(norm, width)
        self.activation = nn.ReLU() if activation is None else activation
        self.linear2 = nn.Linear(width, width)
        self.norm2 = make_fc_norm(norm, width)
        self.scale = Multiplier(start=0.0) if scaling == "rezero" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.norm1(self.linear1(x)))
        out = self.scale(self.norm2(self.linear2(out)))
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

"""Shortcuts: the S in y = g(F(x) + S(x)).

Where F keeps the shape of x, S is the identity. Where F changes it, S is one of two things: the identity padded with
zeros, or a learned projection W_s (He et al. 2015, arXiv:1512.03385, §3.2 eq. 2 and §4.1 "identity vs. projection").
What weighs F and S before they are added stands in ``gates``.
"""

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError, require_choice

ShortcutOption = Literal["A", "B", "C", "scaled", "gated", "highway", "dropout"]
PadSide = Literal["append", "center"]
Form = Literal["conv", "fc"]


class IdentityShortcut(nn.Module):
    """S(x) = x."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class SubsampleShortcut(IdentityShortcut):
    """S(x) = x with every s-th row and column kept (Keras's ``ResNet*V2``, in the last block of a stage).

    Shape: ``(N, C, H, W)`` to ``(N, C, ⌈H/s⌉, ⌈W/s⌉)``. As an identity it carries x itself, not p(x).
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class ZeroPadShortcut(nn.Module):
    """S(x) = x with every s-th row and column kept and zero channels added; it has no parameters (option A).

    Shapes: ``(N, C, H, W)`` to ``(N, C', ⌈H/s⌉, ⌈W/s⌉)``, or ``(N, C)`` to ``(N, C')`` for vectors.

    ``pad="append"`` puts the zeros behind the channels (fb.resnet.torch); ``"center"`` half on either side, the odd
    one behind (akamaster). Both are called "option A", and weights of one do not fit the other.

    Raises ``ConfigError`` for C' < C: dropping channels is no identity.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, pad: PadSide = "append") -> None:
        super().__init__()
        require_choice("pad", pad, get_args(PadSide))
        if out_channels < in_channels:
            raise ConfigError(
                f"a zero-padded shortcut cannot narrow {in_channels} channels to {out_channels}; "
                "use a projection there (shortcut='B')"
            )
        zeros = out_channels - in_channels
        self.front = zeros // 2 if pad == "center" else 0
        self.back = zeros - self.front
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        # F.pad counts dimensions from the last one backwards; the channels are dimension 1.
        return F.pad(x, [0, 0] * (x.dim() - 2) + [self.front, self.back])

    def extra_repr(self) -> str:
        return f"front={self.front}, back={self.back}, stride={self.stride}"


class ProjectionShortcut(nn.Module):
    """S(x) = BN(W_s * x) with a 1×1 convolution W_s (options B and C).

    Shape: ``(N, C, H, W)`` to ``(N, C', ⌈H/s⌉, ⌈W/s⌉)``. ``norm`` makes the norm of C' channels; pre-activation nets
    have the identity there. ``pool`` averages each s×s square before W_s, where a stride would keep one of its pixels
    (He et al. 2018, arXiv:1812.01187, Figure 2c, "ResNet-D").
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        *,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        pool: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        pooled = pool and stride > 1
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if pooled else nn.Identity()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=1 if pooled else stride, bias=bias)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(self.pool(x)))
        return out


class MatrixShortcut(nn.Module):
    """S(x) = W_s x with a matrix of n' rows and n columns and no bias: a[l+2] = g(z[l+2] + W_s a[l]).

    Shape: ``(N, n)`` to ``(N, n')``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out


def make_shortcut(
    option: ShortcutOption | None,
    in_channels: int,
    out_channels: int,
    stride: int = 1,
    *,
    pad: PadSide = "append",
    form: Form = "conv",
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    pool: bool = False,
    bias: bool = False,
) -> nn.Module | None:
    """The shortcut of one block under an option of the paper (§4.1, Table 3).

    - ``"A"``: identity, zero-padded where the shape changes. No parameters.
    - ``"B"``: identity, projection where the shape changes.
    - ``"C"``: projection everywhere.
    - ``"scaled"``, ``"gated"``, ``"highway"``, ``"dropout"``: that of option A, which a gate weighs (``gates``).
    - ``None``: no shortcut, the plain counterpart.

    ``form="fc"`` gives the shortcuts of vectors ``(N, n)``, which have no stride. ``norm``, ``pool`` and ``bias`` are
    those of a convolutional projection.
    """
    if option is None:
        return None
    require_choice("shortcut", option, get_args(ShortcutOption))
    same_shape = in_channels == out_channels and stride == 1
    if same_shape and option != "C":
        return IdentityShortcut()
    if option not in ("B", "C"):
        return ZeroPadShortcut(in_channels, out_channels, stride, pad)
    if form == "fc":
        return MatrixShortcut(in_channels, out_channels)
    return ProjectionShortcut(in_channels, out_channels, stride, norm=norm, pool=pool, bias=bias)

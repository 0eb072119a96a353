"""Gates: the factors t and c in y = g(t F(x) + c S(x)), the controls that the identity was compared with.

He et al. 2016, arXiv:1603.05027, §3 and Table 1, put a constant, a learned gate or dropout on the shortcuts of a
residual net, and every one of them trained worse than t = c = 1. Here each is a module that weighs the two summands of
a block just before they are added; S is option A's in all of them, as in the paper's nets.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.models.shortcuts import Form

GateOption = Literal["scaled", "gated", "highway", "dropout"]
GATES = get_args(GateOption)


class ConstantGate(nn.Module):
    """t = ``branch_scale`` and c = ``shortcut_scale`` (§3.1, "constant scaling", where c = λ and t is 1 or 1 - λ)."""

    def __init__(self, shortcut_scale: float, branch_scale: float) -> None:
        super().__init__()
        self.shortcut_scale = shortcut_scale
        self.branch_scale = branch_scale

    def forward(self, _x: Tensor, branch: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        return self.branch_scale * branch, self.shortcut_scale * carried

    def extra_repr(self) -> str:
        return f"shortcut_scale={self.shortcut_scale:g}, branch_scale={self.branch_scale:g}"


class LearnedGate(nn.Module):
    """c = 1 - σ(W_g x + b_g), and t = σ(W_g x + b_g) where ``exclusive``, else 1 (§3.1, "exclusive gating" and
    "shortcut-only gating"; the exclusive gate is that of highway networks, Srivastava et al. 2015, arXiv:1505.00387).

    W_g is a 1×1 convolution, of vectors a matrix, with the block's stride: a factor for every value of the output.
    ``bias`` is where b_g starts. At a very negative one the shortcut starts as almost the identity.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, form: Form, bias: float, exclusive: bool
    ) -> None:
        super().__init__()
        self.start = bias
        self.exclusive = exclusive
        if form == "fc":
            self.layer: nn.Conv2d | nn.Linear = nn.Linear(in_channels, out_channels)
        else:
            self.layer = nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride)

    def forward(self, x: Tensor, branch: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(self.layer(x))
        return (gate * branch if self.exclusive else branch), (1 - gate) * carried

    def extra_repr(self) -> str:
        return f"start={self.start:g}, exclusive={self.exclusive}"


class DropoutGate(nn.Module):
    """t = 1; each value's own c is 0 with probability p and else 1 in training, and 1 - p in eval mode (§3.1, "dropout
    shortcut").

    Dropout as Hinton et al. 2012, arXiv:1207.0580, have it, not divided by 1 - p: the paper counts on a c whose mean
    is 1 - p, and compares it with a constant of that value.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, _x: Tensor, branch: Tensor, carried: Tensor) -> tuple[Tensor, Tensor]:
        return branch, (1 - self.p) * F.dropout(carried, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


def start_gates(net: nn.Module) -> None:
    """The start of every learned gate's b_g, in place."""
    for module in net.modules():
        if isinstance(module, LearnedGate):
            assert module.layer.bias is not None
            nn.init.constant_(module.layer.bias, module.start)

"""Settings that all families share: input, output and initial weights, and for residual nets the shortcut."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Literal

from torch import nn

from resnetlab.core.errors import ConfigError, require, require_literals
from resnetlab.models.gates import ConstantGate, DropoutGate, LearnedGate
from resnetlab.models.shortcuts import Form, PadSide, ShortcutOption

Init = Literal["he", "xavier"]
GlobalPool = Literal["avg", ""]

MOST = 65_536
"""The largest width, image side or depth; guards against typing errors, which would make a process that hangs."""


@dataclass(frozen=True, kw_only=True)
class NetConfig(ABC):
    """Input, output and initial weights of a network. ``image_size`` is the side of the images in pixels.

    Convolutional nets take images of any size; for them it is the size that their cost is stated for.
    ``num_classes=0`` leaves the head out, and ``global_pool=""`` then the pooling before it. ``init`` is how
    weights are drawn: ``"he"`` or ``"xavier"``.

    Raises ``ConfigError`` for values that make no network.
    """

    num_classes: int
    in_chans: int
    image_size: int
    init: Init = "he"
    global_pool: GlobalPool = "avg"

    def __post_init__(self) -> None:
        pooled = self.global_pool == "avg" or (self.global_pool == "" and self.num_classes == 0)
        require(pooled, "global_pool", self.global_pool, "'avg', or '' with num_classes=0, which gives the map itself")
        require_literals(self)
        require(self.num_classes >= 0, "num_classes", self.num_classes, "at least 1, or 0 for features")
        require(self.in_chans >= 1, "in_chans", self.in_chans, "at least 1")
        require(1 <= self.image_size <= MOST, "image_size", self.image_size, f"from 1 to {MOST} pixels")

    @abstractmethod
    def make(self) -> nn.Module:
        """The network, with torch's own initial weights; ``create_model`` draws ours."""

    def check_start(self) -> None:  # noqa: B027, of use to residual nets alone
        """Raise ``ConfigError`` for a network that could not learn from its initial weights."""

    def residual_scale(self, blocks: int) -> float:  # noqa: ARG002, of use to residual nets alone
        """What the last scale of every branch is multiplied by at initialisation, in a net of that many blocks."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class ResidualConfig(NetConfig):
    """A network of residual blocks, or with ``shortcut=None`` its plain counterpart.

    ``shortcut`` is option A, B or C; ``pad`` is the side of option A's zeros. ``zero_init_residual`` starts every
    branch at zero, so that each block starts as the identity; ``scale_residual`` scales it by 1/√L (L blocks), so that
    the signal stays bounded at any depth. ``head_dropout`` is the probability of dropout before the head.

    The other values of ``shortcut`` are option A with a gate, y = g(t F(x) + c S(x)) (He et al. 2016, arXiv:1603.05027,
    Table 1); each has settings of its own, idle with any other value:

    - ``"scaled"``: c = ``shortcut_scale`` and t = ``branch_scale``, the paper's λ = 0.5 and 1 (or 0.5);
    - ``"gated"``: c = 1 - σ(W_g x + b_g) and t = 1; b_g starts at ``gate_bias``;
    - ``"highway"``: the same c, and t = σ(W_g x + b_g); of the starts 0 to -10 the paper's search chose -6;
    - ``"dropout"``: c is 0 for a share ``shortcut_dropout`` of the values, drawn anew in each step.

    Raises ``ConfigError`` for values that make no network.
    """

    shortcut: ShortcutOption | None
    scaling: str = "none"
    pad: PadSide = "append"
    zero_init_residual: bool = False
    scale_residual: bool = False
    head_dropout: float = 0.0
    shortcut_scale: float = 0.5
    branch_scale: float = 1.0
    gate_bias: float = -6.0
    shortcut_dropout: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.head_dropout < 1, "head_dropout", self.head_dropout, "a probability, 0 ≤ p < 1")
        require(isfinite(self.shortcut_scale), "shortcut_scale", self.shortcut_scale, "a finite number")
        require(isfinite(self.branch_scale), "branch_scale", self.branch_scale, "a finite number")
        require(isfinite(self.gate_bias), "gate_bias", self.gate_bias, "a finite number")
        p = self.shortcut_dropout
        require(0 <= p < 1, "shortcut_dropout", p, "a probability, 0 ≤ p < 1")
        if self.zero_init_residual and self.scale_residual:
            raise ConfigError("zero_init_residual and scale_residual exclude each other; choose one")
        require(
            self.scaling == "none" or not (self.zero_init_residual or self.scale_residual),
            "scaling",
            self.scaling,
            "none where zero_init_residual or scale_residual is set: either decides how a branch starts",
        )
        if self.shortcut is None and (self.zero_init_residual or self.scale_residual):
            raise ConfigError(
                "zero_init_residual and scale_residual need a shortcut: "
                "a plain block whose branch is silenced gives g(0) and nothing else"
            )

    def make_gate(
        self, in_channels: int, out_channels: int, stride: int = 1, *, form: Form = "conv"
    ) -> nn.Module | None:
        """What weighs the branch and the shortcut of one block; None for options A, B, C and plain nets."""
        if self.shortcut == "scaled":
            return ConstantGate(self.shortcut_scale, self.branch_scale)
        if self.shortcut == "dropout":
            return DropoutGate(self.shortcut_dropout)
        if self.shortcut in ("gated", "highway"):
            exclusive = self.shortcut == "highway"
            return LearnedGate(in_channels, out_channels, stride, form=form, bias=self.gate_bias, exclusive=exclusive)
        return None

    def check_start(self) -> None:
        """Raise ``ConfigError`` for a plain net that ``scaling`` would silence at its start."""
        if self.shortcut is None and self.scaling != "none":
            raise ConfigError(
                f"scaling={self.scaling!r} needs a shortcut: "
                "a plain block whose branch is silenced gives g(0) and nothing else"
            )

    def residual_scale(self, blocks: int) -> float:
        if self.zero_init_residual:
            return 0.0
        return 1 / sqrt(max(1, blocks)) if self.scale_residual else 1.0

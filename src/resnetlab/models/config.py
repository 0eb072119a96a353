"""Settings that all families share: input, output and initial weights, and for residual nets the shortcut."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from torch import nn

from resnetlab.core.errors import ConfigError, require, require_literals
from resnetlab.models.shortcuts import PadSide, ShortcutOption

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

    def residual_scale(self, blocks: int) -> float:  # noqa: ARG002, of use to residual nets alone
        """What the last scale of every branch is multiplied by at initialisation, in a net of that many blocks."""
        return 1.0


@dataclass(frozen=True, kw_only=True)
class ResidualConfig(NetConfig):
    """A network of residual blocks, or with ``shortcut=None`` its plain counterpart.

    ``shortcut`` is option A, B or C; ``pad`` is the side of option A's zeros. ``zero_init_residual`` starts every
    branch at zero, so that each block starts as the identity; ``scale_residual`` scales it by 1/√L (L blocks), so that
    the signal stays bounded at any depth. ``head_dropout`` is the probability of dropout before the head.

    Raises ``ConfigError`` for values that make no network.
    """

    shortcut: ShortcutOption | None
    pad: PadSide = "append"
    zero_init_residual: bool = False
    scale_residual: bool = False
    head_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.head_dropout < 1, "head_dropout", self.head_dropout, "a probability, 0 ≤ p < 1")
        if self.zero_init_residual and self.scale_residual:
            raise ConfigError("zero_init_residual and scale_residual exclude each other; choose one")
        if self.shortcut is None and (self.zero_init_residual or self.scale_residual):
            raise ConfigError(
                "zero_init_residual and scale_residual need a shortcut: "
                "a plain block whose branch is silenced gives g(0) and nothing else"
            )

    def residual_scale(self, blocks: int) -> float:
        if self.zero_init_residual:
            return 0.0
        return 1 / sqrt(max(1, blocks)) if self.scale_residual else 1.0

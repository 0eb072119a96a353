"""Settings that all families share: input, output and initial weights, and for residual nets the shortcut."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, Literal

from torch import nn

from resnetlab.core.errors import ConfigError, require, require_literals
from resnetlab.models.gates import ConstantGate, DropoutGate, LearnedGate
from resnetlab.models.shortcuts import Form, PadSide, ShortcutOption
from resnetlab.models.tailored import TailoredReLU, solve_slope

Init = Literal["he", "xavier", "orthogonal", "delta_orthogonal", "dirac", "looks_linear", "lsuv", "tat"]
GlobalPool = Literal["avg", ""]

MOST = 65_536
"""The largest width, image side or depth; guards against typing errors, which would make a process that hangs."""

DIRAC_NOISE = 0.1
USUAL_START: dict[str, Any] = {"init": "he", "dirac_noise": DIRAC_NOISE, "tailored_slope": None}
"""The settings of a ``ResidualConfig`` that say how its weights are drawn, as they are where nothing is said."""


@dataclass(frozen=True, kw_only=True)
class NetConfig(ABC):
    """Input, output and initial weights of a network. ``image_size`` is the side of the images in pixels.

    Convolutional nets take images of any size; for them it is the size that their cost is stated for.
    ``num_classes=0`` leaves the head out, and ``global_pool=""`` then the pooling before it. ``init`` is how
    weights are drawn:

    - ``"he"``, ``"xavier"``: normal, with the σ of ``init.deviation``.
    - ``"orthogonal"``: (semi-)orthogonal as matrices (Saxe et al. 2013), times √2 before a ReLU.
    - ``"delta_orthogonal"``: the same of the centre tap alone, the other taps zero (Xiao et al. 2018).
    - ``"dirac"``: in branches the identity plus ``dirac_noise`` times He's, else He's (Zagoruyko & Komodakis 2017).
    - ``"looks_linear"``: mirrored, so that a net of ReLUs without a norm or max-pool starts as a linear function
      (Balduzzi et al. 2017): a plain one, or a residual one in pre-activation order with projections (option B or C).
      In post-activation order the shortcut carries ReLU(z), which is not mirrored, and the net is not linear.
    - ``"lsuv"``: orthogonal, then scaled until every layer's output has variance 1 (Mishkin & Matas 2015). Their batch
      is of the data; here it is of standard normal images, as images are standardised and an initial network is a
      function of its seed alone. Scales depend on the whole net: a plain and a residual one share directions only.
    - ``"tat"``: delta-orthogonal with every ReLU a ``TailoredReLU`` whose slope fits the depth (Zhang et al. 2022), for
      plain nets. Pools are not counted. A norm is allowed, but the slope is the one for nets without.

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

    def check_scaling(self) -> None:  # noqa: B027, of use to residual nets alone
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
    ``dirac_noise`` is the factor of He's weights with ``init="dirac"``. ``tailored_slope`` is the slope of
    ``init="tat"``; left out, it is solved for the depth.

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
    dirac_noise: float = DIRAC_NOISE
    tailored_slope: float | None = None
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
        self._check_start()

    def _check_start(self) -> None:
        noise, slope = self.dirac_noise, self.tailored_slope
        require(0 <= noise <= MOST, "dirac_noise", noise, "a number from 0 on")
        require(self.init == "dirac" or noise == DIRAC_NOISE, "dirac_noise", noise, "left alone but with init='dirac'")
        require(slope is None or 0 <= slope <= 1, "tailored_slope", slope, "from 0 (ReLU) to 1 (the identity)")
        require(slope is None or self.init == "tat", "tailored_slope", slope, "left alone but with init='tat'")
        if self.init == "tat" and self.shortcut is not None:
            raise ConfigError(
                "init='tat' is for plain nets: its activation stands in for shortcuts; "
                "build the plain counterpart (shortcut=None), or choose another init"
            )
        if self.init == "lsuv" and self.scale_residual:
            raise ConfigError(
                "init='lsuv' and scale_residual exclude each other: lsuv sets the size of every layer; choose one"
            )

    @property
    @abstractmethod
    def nonlinearities(self) -> int:
        """Activations on the way from the input to the head, those of the blocks among them."""

    @property
    def slope(self) -> float:
        """The slope α of ``TailoredReLU`` with ``init="tat"``."""
        return solve_slope(self.nonlinearities) if self.tailored_slope is None else self.tailored_slope

    def make_rectifier(self) -> nn.Module:
        """The activation of a net of ReLUs: the tailored one with ``init="tat"``."""
        return TailoredReLU(self.slope) if self.init == "tat" else nn.ReLU()

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

    def check_scaling(self) -> None:
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

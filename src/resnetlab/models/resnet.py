"""Convolutional residual networks and their plain counterparts: stem → stages → head."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import mul
from typing import Literal

from torch import Tensor, nn

from resnetlab.core.errors import require
from resnetlab.models.blocks import (
    BRANCHES,
    BlockStyle,
    BottleneckBranch,
    Branch,
    ResidualBlock,
    Scaling,
    StrideAt,
    make_preactivation,
)
from resnetlab.models.classifier import Classifier, FeatureStep, MapInfo, make_head
from resnetlab.models.config import MOST, ResidualConfig
from resnetlab.models.layers import ScalarBias
from resnetlab.models.shortcuts import ShortcutOption, SubsampleShortcut, make_shortcut

Stem = Literal["auto", "imagenet", "cifar", "deep"]
ConvBranch = Literal["basic", "bottleneck"]

SMALL_IMAGE = 64
"""Up to this side in pixels ``stem="auto"`` keeps the map: an ImageNet stem would leave 16×16 of it for all stages."""


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(ResidualConfig, BlockStyle):
    """Every choice that makes one network of the family.

    - ``depths`` are blocks per stage, ``widths`` the width of their branches, ``strides`` the stride of each stage's
      first block (1, then 2 each, where not given).
    - ``stem``: ``"imagenet"`` (7×7 of stride 2, max-pool), ``"cifar"`` (3×3), ``"deep"`` (three 3×3, max-pool), or
      ``"auto"``: CIFAR's up to 64 pixels, else ImageNet's. ``stem_width`` is the first width where not given;
      ``stem_activation`` and ``stem_pool`` are ReLU and max-pool behind it; ``stem_pool_zeros`` pads the map for the
      pool with zeros that count, as Keras does. ``stem_stride`` is the stride of its first convolution where not the
      usual one.
    - ``inner_widths`` are the widths within the bottlenecks of each stage; ``widths`` then are those of their outputs.
    - ``stride_at`` is the block of a stage that has its stride: the first, or the last, as in Keras's ``ResNet*V2``.
    - ``final_norm`` off leaves out the norm and activation behind the stages of a pre-activation net.
    - ``projection_pool`` averages before a strided projection (ResNet-D).
    - ``stochastic_depth`` is the probability p of skipping the last branch; that of block l of L is p·l/L.
    - The rest is in ``BlockStyle`` (what all blocks have in common), ``ResidualConfig`` and ``NetConfig``.

    Raises ``ConfigError`` for values that make no network.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    branch: ConvBranch = "basic"
    stem: Stem = "imagenet"
    stem_width: int | None = None
    stem_activation: bool = True
    stem_pool: bool = True
    stem_pool_zeros: bool = False
    stem_stride: int | None = None
    inner_widths: tuple[int, ...] | None = None
    stride_at: StrideAt = "first"
    final_norm: bool = True
    projection_pool: bool = False
    stochastic_depth: float = 0.0
    shortcut: ShortcutOption | None = "B"
    scaling: Scaling = "none"
    num_classes: int = 1000
    in_chans: int = 3
    image_size: int = 224

    def __post_init__(self) -> None:
        ResidualConfig.__post_init__(self)
        BlockStyle.__post_init__(self)
        stages = len(self.depths)
        require(stages == len(self.widths) > 0, "depths", self.depths, "as many numbers as widths")
        require(min(self.depths) >= 1, "depths", self.depths, "at least one block in every stage")
        require(min(self.widths) >= 1, "widths", self.widths, "at least one channel in every stage")
        require(max(*self.widths, sum(self.depths)) <= MOST, "widths and depths", self.widths, f"at most {MOST}")
        strides_fit = self.strides is None or (len(self.strides) == stages and min(self.strides) >= 1)
        require(strides_fit, "strides", self.strides, "a whole number from 1 on for every stage")
        require(self.stem_width is None or self.stem_width >= 1, "stem_width", self.stem_width, "at least 1")
        require(self.stem_stride is None or self.stem_stride >= 1, "stem_stride", self.stem_stride, "at least 1")
        self._check_inner_widths()
        self._check_activation()
        require(
            self.stem != "deep" or self.first_width % 2 == 0, "stem_width", self.first_width, "even for a deep stem"
        )
        require(0 <= self.stochastic_depth < 1, "stochastic_depth", self.stochastic_depth, "a probability, 0 ≤ p < 1")
        require(
            self.branch == "bottleneck" or (self.groups, self.base_width) == (1, 64),
            "branch",
            self.branch,
            "bottleneck where groups or base_width are set",
        )
        require(
            self.scaling != "fixup_scalar" or (self.order == "post" and self.stem_kind != "deep"),
            "scaling",
            self.scaling,
            "another one with order='pre' or a deep stem: Fixup's authors have neither",
        )
        free = self.scaling in ("none", "rezero")
        require(free or self.norm == "none", "scaling", self.scaling, "none, or rezero, where there is a norm")
        require(
            self.branch == "bottleneck" or self.stride_in == "3x3",
            "stride_in",
            self.stride_in,
            "left alone with basic blocks, whose stride has one place",
        )

    def _check_inner_widths(self) -> None:
        inner = self.inner_widths
        if inner is None:
            return
        fits = len(inner) == len(self.widths) and min(inner) >= 1 and max(inner) <= MOST
        require(fits, "inner_widths", inner, "as many numbers as widths, each at least 1")
        free = self.branch == "bottleneck" and self.base_width == 64
        require(free, "inner_widths", inner, "left out but with branch='bottleneck' and the usual base_width")

    def _check_activation(self) -> None:
        start = self.init
        if start == "tat":
            require(self.activation == "relu", "activation", self.activation, "left alone with init='tat'")
            require(self.scaling == "none", "scaling", self.scaling, "none with init='tat'")
        if start in ("tat", "looks_linear"):
            require(self.se_reduction == 0, "se_reduction", self.se_reduction, f"0 with init={start!r}")
        if start == "looks_linear":
            require(self.groups == 1, "groups", self.groups, "1 with init='looks_linear'")
        require(
            start != "lsuv" or self.scaling in ("none", "skipinit"),
            "scaling",
            self.scaling,
            "none or skipinit with init='lsuv', which sets the size of every layer itself",
        )

    @property
    def first_width(self) -> int:
        """Channels of the stem."""
        return self.stem_width or self.widths[0]

    @property
    def first_stride(self) -> int:
        """The stride of the stem's first convolution."""
        return self.stem_stride or (1 if self.stem_kind == "cifar" else 2)

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """The stride of each stage: where not given, 1 and then 2 each, or 2 each and then 1 where the last has it."""
        if self.strides is not None:
            return self.strides
        twos = (2,) * (len(self.depths) - 1)
        return (1, *twos) if self.stride_at == "first" else (*twos, 1)

    @property
    def stem_kind(self) -> Stem:
        """The stem itself; of ``"auto"`` the one that it chooses at this image size."""
        if self.stem != "auto":
            return self.stem
        return "cifar" if self.image_size <= SMALL_IMAGE else "imagenet"

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels behind each stage."""
        expansion = 1 if self.inner_widths else BRANCHES[self.branch].expansion
        return tuple(width * expansion for width in self.widths)

    @property
    def nonlinearities(self) -> int:
        inside = 1 if self.branch == "basic" else 2
        convolutions = (3 if self.stem_kind == "deep" else 1) - (self.order == "pre")
        behind = self.order == "pre" and self.final_norm
        return convolutions * self.stem_activation + sum(self.depths) * (inside + 1) + behind

    def make_nonlinearity(self) -> nn.Module:
        return self.make_rectifier() if self.init == "tat" else super().make_nonlinearity()

    def make(self) -> "ResNet":
        return ResNet(self)


class ResNet(Classifier):
    """Stem → stages of residual blocks → average pool → linear head (He et al. 2015, Table 1 and §4.2).

    ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``. Each stage after the first halves the map, once, in its
    first block. The ImageNet stem quarters the map; the CIFAR stem keeps it. Blocks are ``stages.<stage>.<block>``. A
    pre-activation net has its last norm and activation behind the stages, in ``final``.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.configure(config)
        self.stem = make_stem(config)
        self.stages = make_stages(config)
        self.num_features = config.out_channels[-1]
        self.final = make_final(config, self.num_features)
        self.head = make_head(self.num_features, config.num_classes)

    def finish(self, x: Tensor) -> Tensor:
        out: Tensor = self.final(x)
        return out

    def feature_steps(self) -> list[FeatureStep]:
        config = self.config
        assert isinstance(config, ResNetConfig)
        layers = OrderedDict(self.stem.named_children())
        # The stem's map is the one before its max-pool, as timm has it.
        pool = [layers.pop(name) for name in ("pad", "pool") if name in layers]
        first, *rest = self.stages
        parts = [nn.Sequential(layers), nn.Sequential(*pool, first), *rest]
        names = [f"stem.{next(reversed(layers))}", *(f"stages.{number}" for number in range(len(self.stages)))]
        strides = list(config.stage_strides)
        strides[0] *= 2 if pool else 1
        return [
            FeatureStep(part=part, info=MapInfo(num_chs=channels, reduction=reduction, module=name))
            for part, channels, reduction, name in zip(
                parts,
                (config.first_width, *config.out_channels),
                accumulate((config.first_stride, *strides), mul),
                names,
                strict=True,
            )
        ]


def make_final(config: ResNetConfig, channels: int) -> nn.Module:
    """What comes behind the last block: in pre-activation order norm and activation; Fixup's authors add one number."""
    if config.order == "pre" and config.final_norm:
        return make_preactivation(config, channels)
    return ScalarBias() if config.scaling == "fixup_scalar" else nn.Identity()


def make_stem(config: ResNetConfig) -> nn.Sequential:
    """What comes before the first block: one or three convolutions, norm, activation, max-pool.

    In pre-activation order the last norm and activation are left out: the first block has them.
    """
    width = config.first_width
    layers = OrderedDict[str, nn.Module]()

    def add_conv(number: str, before: int, after: int, kernel: int) -> None:
        bias = config.bias(before_norm=number != "" or config.order == "post")
        stride = 1 if layers else config.first_stride
        layers[f"conv{number}"] = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=bias)

    def add_norm(number: str, channels: int) -> None:
        layers[f"norm{number}"] = config.make_norm(channels)
        if config.stem_activation:
            layers[f"act{number}"] = config.make_nonlinearity()

    if config.stem_kind == "deep":
        add_conv("1", config.in_chans, width // 2, 3)
        add_norm("1", width // 2)
        add_conv("2", width // 2, width // 2, 3)
        add_norm("2", width // 2)
        add_conv("", width // 2, width, 3)
    elif config.stem_kind == "imagenet":
        add_conv("", config.in_chans, width, 7)
    else:
        add_conv("", config.in_chans, width, 3)
    if config.order == "post":
        add_norm("", width)
    if config.stem_pool and config.stem_kind != "cifar":
        if config.stem_pool_zeros:
            layers["pad"] = nn.ZeroPad2d(1)
        layers["pool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=0 if config.stem_pool_zeros else 1)
    return nn.Sequential(layers)


def make_stages(config: ResNetConfig) -> nn.Sequential:
    """All blocks. The first of each stage takes the stage's stride and its change of channels."""
    blocks = make_blocks(config)
    return nn.Sequential(*(nn.Sequential(*(next(blocks) for _ in range(depth))) for depth in config.depths))


def make_blocks(config: ResNetConfig) -> Iterator[ResidualBlock]:
    """The blocks from the first to the last, each with the drop probability of the linear rule."""
    stages = [stage for stage, depth in enumerate(config.depths) for _ in range(depth)]
    strides = [
        stride if number == (0 if config.stride_at == "first" else depth - 1) else 1
        for stride, depth in zip(config.stage_strides, config.depths, strict=True)
        for number in range(depth)
    ]
    channels = [config.first_width, *(config.out_channels[stage] for stage in stages)]
    for number, (before, after) in enumerate(pairwise(channels)):
        drop = config.stochastic_depth * (number + 1) / len(stages)
        yield make_block(config, stages[number], before, after, strides[number], drop)


def make_block(
    config: ResNetConfig, stage: int, in_channels: int, out_channels: int, stride: int, drop: float
) -> ResidualBlock:
    """One block: branch, shortcut and activations as the configuration says."""
    post = config.order == "post"
    width = config.widths[stage]
    if config.inner_widths is not None:
        branch: Branch = BottleneckBranch(in_channels, width, stride, config, config.inner_widths[stage])
    else:
        branch = BRANCHES[config.branch](in_channels, width, stride, config)
    return ResidualBlock(
        branch,
        _make_shortcut(config, in_channels, out_channels, stride),
        activation=config.make_nonlinearity() if post else nn.Identity(),
        preactivation=_make_preactivation(config, in_channels),
        drop=drop,
        gate=config.make_gate(in_channels, out_channels, stride),
    )


def _make_shortcut(config: ResNetConfig, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    if config.stride_at == "last" and config.shortcut == "B" and in_channels == out_channels and stride > 1:
        return SubsampleShortcut(stride)
    normed = config.order == "post" and config.norm != "none"
    return make_shortcut(
        config.shortcut,
        in_channels,
        out_channels,
        stride,
        pad=config.pad,
        norm=config.make_norm if normed else nn.Identity,
        pool=config.projection_pool,
        bias=config.bias(before_norm=normed),
    )


def _make_preactivation(config: ResNetConfig, channels: int) -> nn.Module | None:
    if config.order == "pre":
        return make_preactivation(config, channels)
    # Fixup's authors shift what branch and shortcut read; an identity still carries x itself.
    return ScalarBias() if config.scaling == "fixup_scalar" else None


def image_notes(config: ResNetConfig) -> list[str]:
    """What a user should know of this stem on images of this size: what auto chose, and when it is a bad match."""
    size = f"{config.image_size} pixels"
    if config.stem == "auto":
        return [f"stem: {config.stem_kind}, chosen for images of {size}"]
    if config.stem_kind != "cifar" and config.image_size <= SMALL_IMAGE // 2:
        left = -(-config.image_size // 4) if config.stem_pool else -(-config.image_size // 2)
        return [
            f"the {config.stem_kind} stem leaves a map of {left}×{left} from images of {size}; "
            "small ones are better served by stem=cifar, or stem=auto"
        ]
    return []

"""Convolutional residual networks and their plain counterparts: stem → stages → head."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from resnetlab.core.errors import require
from resnetlab.models.blocks import BRANCHES, BlockStyle, ResidualBlock, make_preactivation
from resnetlab.models.classifier import Classifier, make_head
from resnetlab.models.config import MOST, ResidualConfig
from resnetlab.models.layers import make_activation, make_norm
from resnetlab.models.shortcuts import ShortcutOption, make_shortcut

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
      ``stem_activation`` and ``stem_pool`` are ReLU and max-pool behind it.
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
    projection_pool: bool = False
    stochastic_depth: float = 0.0
    shortcut: ShortcutOption | None = "B"
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
            self.scaling == "none" or not (self.zero_init_residual or self.scale_residual),
            "scaling",
            self.scaling,
            "none where zero_init_residual or scale_residual is set: either decides how a branch starts",
        )
        require(self.scaling == "none" or self.norm == "none", "scaling", self.scaling, "none where there is a norm")
        require(
            self.branch == "bottleneck" or self.stride_in == "3x3",
            "stride_in",
            self.stride_in,
            "left alone with basic blocks, whose stride has one place",
        )

    @property
    def first_width(self) -> int:
        """Channels of the stem."""
        return self.stem_width or self.widths[0]

    @property
    def stem_kind(self) -> Stem:
        """The stem itself; of ``"auto"`` the one that it chooses at this image size."""
        if self.stem != "auto":
            return self.stem
        return "cifar" if self.image_size <= SMALL_IMAGE else "imagenet"

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels behind each stage."""
        return tuple(width * BRANCHES[self.branch].expansion for width in self.widths)

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
        self.config = config
        self.stem = make_stem(config)
        self.stages = make_stages(config)
        self.num_features = config.out_channels[-1]
        pre = config.order == "pre"
        self.final = make_preactivation(config, self.num_features) if pre else nn.Identity()
        self.head = make_head(self.num_features, config.num_classes)

    def finish(self, x: Tensor) -> Tensor:
        out: Tensor = self.final(x)
        return out


def make_stem(config: ResNetConfig) -> nn.Sequential:
    """What comes before the first block: one or three convolutions, norm, activation, max-pool.

    In pre-activation order the last norm and activation are left out: the first block has them.
    """
    width = config.first_width
    layers = OrderedDict[str, nn.Module]()

    def add_conv(number: str, before: int, after: int, kernel: int, stride: int) -> None:
        layers[f"conv{number}"] = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, bias=config.bias)

    def add_norm(number: str, channels: int) -> None:
        layers[f"norm{number}"] = make_norm(config.norm, channels)
        if config.stem_activation:
            layers[f"act{number}"] = make_activation(config.activation)

    if config.stem_kind == "deep":
        add_conv("1", config.in_chans, width // 2, 3, 2)
        add_norm("1", width // 2)
        add_conv("2", width // 2, width // 2, 3, 1)
        add_norm("2", width // 2)
        add_conv("", width // 2, width, 3, 1)
    elif config.stem_kind == "imagenet":
        add_conv("", config.in_chans, width, 7, 2)
    else:
        add_conv("", config.in_chans, width, 3, 1)
    if config.order == "post":
        add_norm("", width)
    if config.stem_pool and config.stem_kind != "cifar":
        layers["pool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.Sequential(layers)


def make_stages(config: ResNetConfig) -> nn.Sequential:
    """All blocks. The first of each stage takes the stage's stride and its change of channels."""
    blocks = make_blocks(config)
    return nn.Sequential(*(nn.Sequential(*(next(blocks) for _ in range(depth))) for depth in config.depths))


def make_blocks(config: ResNetConfig) -> Iterator[ResidualBlock]:
    """The blocks from the first to the last, each with the drop probability of the linear rule."""
    first_strides = config.strides or (1,) + (2,) * (len(config.depths) - 1)
    widths = [width for width, depth in zip(config.widths, config.depths, strict=True) for _ in range(depth)]
    strides = [
        stride if number == 0 else 1
        for stride, depth in zip(first_strides, config.depths, strict=True)
        for number in range(depth)
    ]
    channels = [config.first_width, *(width * BRANCHES[config.branch].expansion for width in widths)]
    for number, (before, after) in enumerate(pairwise(channels)):
        drop = config.stochastic_depth * (number + 1) / len(widths)
        yield make_block(config, before, widths[number], after, strides[number], drop)


def make_block(
    config: ResNetConfig, in_channels: int, width: int, out_channels: int, stride: int, drop: float
) -> ResidualBlock:
    """One block: branch, shortcut and activations as the configuration says."""
    pre = config.order == "pre"
    return ResidualBlock(
        BRANCHES[config.branch](in_channels, width, stride, config),
        make_shortcut(
            config.shortcut,
            in_channels,
            out_channels,
            stride,
            pad=config.pad,
            norm="none" if pre else config.norm,
            pool=config.projection_pool,
            bias=config.bias,
        ),
        activation=nn.Identity() if pre else make_activation(config.activation),
        preactivation=make_preactivation(config, in_channels) if pre else None,
        drop=drop,
    )


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

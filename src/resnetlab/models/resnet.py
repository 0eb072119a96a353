"""Convolutional residual networks and their plain twins: stem → stages → head."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from resnetlab.errors import require, require_choice
from resnetlab.models.blocks import BRANCHES, BasicBranch, BottleneckBranch, Branch, ResidualBlock, StrideIn
from resnetlab.models.config import ResidualConfig
from resnetlab.models.shortcuts import ShortcutOption, make_shortcut

Stem = Literal["imagenet", "cifar"]
ConvBranch = Literal["basic", "bottleneck"]


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(ResidualConfig):
    """Every choice that makes one network of the family.

    ``depths`` are blocks per stage, ``widths`` the width of their branches; ``stride_in`` places the stride of a
    bottleneck. The rest is in ``ResidualConfig`` and ``NetConfig``.

    Raises ``ConfigError`` for values that make no network.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    branch: ConvBranch = "basic"
    stem: Stem = "imagenet"
    stride_in: StrideIn = "3x3"
    shortcut: ShortcutOption | None = "B"
    num_classes: int = 1000
    in_chans: int = 3
    image_size: int = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("branch", self.branch, ("basic", "bottleneck"))
        require_choice("stem", self.stem, ("imagenet", "cifar"))
        require_choice("stride_in", self.stride_in, ("3x3", "1x1"))
        require(len(self.depths) == len(self.widths) > 0, "depths", self.depths, "as many numbers as widths")
        require(min(self.depths) >= 1, "depths", self.depths, "at least one block in every stage")
        require(min(self.widths) >= 1, "widths", self.widths, "at least one channel in every stage")

    def make(self) -> "ResNet":
        return ResNet(self)


class ResNet(nn.Module):
    """Stem → stages of residual blocks → average pool → linear head (He et al. 2015, Table 1 and §4.2).

    ``(N, in_chans, H, W)`` to logits ``(N, num_classes)``. Each stage after the first halves the map, once, in its
    first block. The ImageNet stem quarters the map (7×7 convolution of stride 2, max-pool); the CIFAR stem (3×3) keeps
    it. Blocks are ``stages.<stage>.<block>``.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = make_stem(config)
        expansion = BRANCHES[config.branch].expansion
        channels = [config.widths[0], *(width * expansion for width in config.widths)]
        self.stages = nn.Sequential(*(make_stage(config, i, channels[i]) for i in range(len(config.depths))))
        self.head = nn.Linear(channels[-1], config.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(self.stem(x))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


def make_stem(config: ResNetConfig) -> nn.Sequential:
    """What comes before the first block: convolution, BN, ReLU, and for ImageNet a 3×3 max-pool of stride 2."""
    width = config.widths[0]
    kernel, stride = (3, 1) if config.stem == "cifar" else (7, 2)
    conv = nn.Conv2d(config.in_chans, width, kernel, stride, padding=kernel // 2, bias=False)
    stem = OrderedDict[str, nn.Module](conv=conv, norm=nn.BatchNorm2d(width), relu=nn.ReLU())
    if config.stem == "imagenet":
        stem["pool"] = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.Sequential(stem)


def make_stage(config: ResNetConfig, number: int, in_channels: int) -> nn.Sequential:
    """The blocks of one stage; the first of them takes the stride and the change of channels."""
    width = config.widths[number]
    channels = [in_channels] + [width * BRANCHES[config.branch].expansion] * config.depths[number]
    strides = [1 if number == 0 else 2] + [1] * (config.depths[number] - 1)
    return nn.Sequential(
        *(
            ResidualBlock(
                make_branch(config, before, width, stride),
                make_shortcut(config.shortcut, before, after, stride, pad=config.pad),
            )
            for (before, after), stride in zip(pairwise(channels), strides, strict=True)
        )
    )


def make_branch(config: ResNetConfig, in_channels: int, width: int, stride: int) -> Branch:
    """The branch that ``config.branch`` names; only a bottleneck has a choice of where its stride is."""
    if config.branch == "bottleneck":
        return BottleneckBranch(in_channels, width, stride, config.stride_in)
    return BasicBranch(in_channels, width, stride)

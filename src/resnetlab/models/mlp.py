"""Fully-connected residual networks and their plain counterparts: the form in which the idea is easiest to see."""

from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from resnetlab.core.errors import require
from resnetlab.models.blocks import FcBranch, FcNorm, FcScaling, ResidualBlock, make_fc_norm
from resnetlab.models.classifier import Classifier, make_head
from resnetlab.models.config import MOST, ResidualConfig
from resnetlab.models.shortcuts import ShortcutOption, make_shortcut


@dataclass(frozen=True, kw_only=True)
class MLPConfig(ResidualConfig):
    """``depth`` counts weight layers: one or two in the stem, two in each block, one in the head.

    An odd depth has the second layer in its stem. ``widths`` are the hidden widths; the blocks are divided evenly over
    them, the remainder going to the first ones. ``scaling="rezero"`` puts a learned number α that starts at 0 behind
    each branch (Bachlechner et al. 2020, arXiv:2003.04887). The rest is in ``ResidualConfig`` and ``NetConfig``.

    Raises ``ConfigError`` for values that make no network.
    """

    depth: int
    widths: tuple[int, ...] = (64,)
    norm: FcNorm = "none"
    scaling: FcScaling = "none"
    shortcut: ShortcutOption | None = "B"
    num_classes: int = 10
    in_chans: int = 1
    image_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        require(2 <= self.depth <= MOST, "depth", self.depth, f"from 2 (stem and head) to {MOST} weight layers")
        fits = len(self.widths) > 0 and min(self.widths) >= 1 and max(self.widths) <= MOST
        require(fits, "widths", self.widths, f"one or more numbers from 1 to {MOST}")

    @property
    def blocks(self) -> int:
        """Blocks of two weight layers, between the stem and the head."""
        return (self.depth - 2) // 2

    @property
    def nonlinearities(self) -> int:
        return self.depth - 1

    def make(self) -> "MLP":
        return MLP(self)


class MLP(Classifier):
    """Stem → stages of fully-connected blocks → linear head.

    ``(N, in_chans, S, S)`` or ``(N, in_chans·S²)`` to logits ``(N, num_classes)``, where S is ``image_size``. A block
    is exactly a[l+2] = g(z[l+2] + W_s a[l]) with g = ReLU, and its plain counterpart a[l+2] = g(z[l+2]). Without a norm
    and with He initialisation each residual block multiplies the signal, until it overflows: beyond some hundred layers
    use ``zero_init_residual``, ``scale_residual`` or a norm.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.configure(config)
        self.stem = make_stem(config)
        inputs, counts = (config.widths[0], *config.widths), divide_blocks(config.blocks, config.widths)
        self.stages = nn.Sequential(*(make_stage(config, i, inputs[i], blocks) for i, blocks in enumerate(counts)))
        self.num_features = inputs[min(config.blocks, len(config.widths))]
        self.head = make_head(self.num_features, config.num_classes)

    def prepare(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def pool_features(self, features: Tensor) -> Tensor:
        return features


def divide_blocks(blocks: int, widths: tuple[int, ...]) -> list[int]:
    """Blocks of each width: divided evenly, the remainder going to the first ones."""
    each, rest = divmod(blocks, len(widths))
    return [each + (number < rest) for number in range(len(widths))]


def make_stem(config: MLPConfig) -> nn.Sequential:
    """The layer from the pixels to the first width, and for an odd depth one more."""
    pixels = config.in_chans * config.image_size**2
    sizes = [pixels] + [config.widths[0]] * (1 + config.depth % 2)
    layers = OrderedDict[str, nn.Module]()
    for number, (before, after) in enumerate(pairwise(sizes), start=1):
        layers[f"linear{number}"] = nn.Linear(before, after)
        layers[f"norm{number}"] = make_fc_norm(config.norm, after)
        layers[f"relu{number}"] = config.make_rectifier()
    return nn.Sequential(layers)


def make_stage(config: MLPConfig, number: int, in_channels: int, blocks: int) -> nn.Sequential:
    """``blocks`` blocks of one width; the first of them takes the change of width."""
    width = config.widths[number]
    sizes = [in_channels] + [width] * blocks
    return nn.Sequential(
        *(
            ResidualBlock(
                FcBranch(before, after, config.norm, config.make_rectifier(), scaling=config.scaling),
                make_shortcut(config.shortcut, before, after, pad=config.pad, form="fc"),
                config.make_rectifier(),
                gate=config.make_gate(before, after, form="fc"),
            )
            for before, after in pairwise(sizes)
        )
    )

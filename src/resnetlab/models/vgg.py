"""VGG: the plain nets that residual nets grew out of, and the third column of the paper's Figure 3."""

from dataclasses import dataclass

from torch import Tensor, nn

from resnetlab.core.errors import require
from resnetlab.models.classifier import Classifier, FeatureStep, MapInfo, make_head
from resnetlab.models.config import NetConfig

WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, kw_only=True)
class VGGConfig(NetConfig):
    """``depths`` are the convolutions of the five stages, of widths 64, 128, 256, 512, 512.

    ``dropout`` is the probability in the two hidden fully-connected layers.

    Raises ``ConfigError`` for values that make no network.
    """

    depths: tuple[int, ...]
    norm: bool = False
    dropout: float = 0.5
    num_classes: int = 1000
    in_chans: int = 3
    image_size: int = 224

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.depths) == len(WIDTHS), "depths", self.depths, f"{len(WIDTHS)} numbers, one a stage")
        require(min(self.depths) >= 1, "depths", self.depths, "at least one convolution in every stage")
        require(
            self.init not in ("dirac", "tat"), "init", self.init, "another one: VGG has no blocks that it applies to"
        )
        require(0 <= self.dropout < 1, "dropout", self.dropout, "a probability, 0 ≤ p < 1")
        require(self.image_size >= 32, "image_size", self.image_size, "at least 32: five stages halve the map")

    def make(self) -> "VGG":
        return VGG(self)


class VGG(Classifier):
    """Five stages of 3×3 convolutions, each ended by a max-pool, then three fully-connected layers.

    Simonyan & Zisserman 2014, arXiv:1409.1556, Table 1 (columns A, B, D, E = VGG-11, 13, 16, 19). ``(N, in_chans, H,
    W)``, H and W at least 32, to logits ``(N, num_classes)``. The last map is averaged to 7×7, which changes nothing at
    224 pixels, so that other sizes fit too. ``norm=True`` puts BN behind each convolution, which keeps its bias.
    """

    def __init__(self, config: VGGConfig) -> None:
        super().__init__()
        self.configure(config)
        self.stem = nn.Identity()
        inputs = (config.in_chans, *WIDTHS)
        self.stages = nn.Sequential(
            *(
                make_stage(inputs[i], width, depth, config.norm)
                for i, (width, depth) in enumerate(zip(WIDTHS, config.depths, strict=True))
            )
        )
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.hidden = nn.Sequential(
            nn.Linear(WIDTHS[-1] * 7 * 7, 4096),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(config.dropout),
        )
        self.num_features = 4096
        self.head = make_head(self.num_features, config.num_classes)

    def pool_features(self, features: Tensor) -> Tensor:
        pooled: Tensor = self.hidden(self.pool(features).flatten(1))
        return pooled

    def feature_steps(self) -> list[FeatureStep]:
        steps: list[FeatureStep] = []
        pool: list[nn.Module] = []
        for number, (stage, width) in enumerate(zip(self.stages, WIDTHS, strict=True)):
            assert isinstance(stage, nn.Sequential)
            # A stage's map is the one before its max-pool, as timm has it.
            *layers, last = stage
            info = MapInfo(num_chs=width, reduction=2**number, module=f"stages.{number}.{len(layers) - 1}")
            steps.append(FeatureStep(part=nn.Sequential(*pool, *layers), info=info))
            pool = [last]
        info = MapInfo(num_chs=WIDTHS[-1], reduction=2 ** len(WIDTHS), module=f"stages.{len(WIDTHS) - 1}")
        return [*steps, FeatureStep(part=nn.Sequential(*pool), info=info)]


def make_stage(in_channels: int, width: int, depth: int, norm: bool) -> nn.Sequential:
    """``depth`` times convolution (BN) ReLU, then a 2×2 max-pool."""
    layers: list[nn.Module] = []
    for number in range(depth):
        layers.append(nn.Conv2d(in_channels if number == 0 else width, width, kernel_size=3, padding=1))
        if norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.MaxPool2d(kernel_size=2))

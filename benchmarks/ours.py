"""Our own training loop, as the benchmarks run it."""

import torch
from torch import nn

from resnetlab.data.dataset import ImageData, Split
from resnetlab.data.loader import Loader
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer


def noise(samples: int, side: int, classes: int = 10) -> ImageData:
    """Noise in colours; what is in an image makes no difference to its speed."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (samples, 3, side, side), generator=draw, dtype=torch.uint8)
    split = Split(images=images, labels=torch.randint(0, classes, (samples,), generator=draw))
    return ImageData(source="noise", train=split, test=split, classes=tuple(map(str, range(classes))))


class Ours:
    """One epoch of ``Trainer.train_epoch``, from the first step on, over and over."""

    def __init__(self, net: nn.Module, loader: Loader, config: TrainConfig) -> None:
        self.net, self.loader = net, loader
        self.trainer = Trainer(net, loader, config, seed=0)

    def __call__(self) -> None:
        self.trainer.state.begin_epoch()
        self.trainer.train_epoch()

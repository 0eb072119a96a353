"""What every analysis is given beside the network: the settings, one batch, and where to tell how far it is."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnetlab.diagnostics.config import DiagnosisConfig

if TYPE_CHECKING:
    from torch import Tensor

    from resnetlab.data.dataset import Images
    from resnetlab.data.loader import Loader
    from resnetlab.diagnostics.load import DiagnosedNet

OnProgress = Callable[[int, int], None]
Progress = Callable[[str], AbstractContextManager[OnProgress]]
"""From the name of some work a context that gives ``on_progress(done, total)``."""

DEEP = 100
"""Blocks from which on memory is saved: by a second forward pass, or by fewer images."""


def silent(_name: str) -> AbstractContextManager[OnProgress]:
    """Progress that nobody is told of."""
    return nullcontext(lambda _done, _total: None)


@dataclass(frozen=True, kw_only=True)
class Context:
    """``batch`` has images ``(N, C, H, W)``, standardised, and labels ``(N,)``, on the network's device."""

    config: DiagnosisConfig
    batch: "tuple[Tensor, Tensor]"
    progress: Progress = silent


def context_of(net: "DiagnosedNet", config: DiagnosisConfig, progress: Progress | None = None) -> Context:
    """The context with the first of the network's training images in the order of the seed, not augmented."""
    from resnetlab.data.loader import Loader

    loader = Loader(net.data.train.to(net.device), net.data.normalisation, config.batch_size)
    return Context(config=config, batch=next(loader.shuffled(config.seed, epoch=1)), progress=progress or silent)


def some_images(net: "DiagnosedNet", images: "Images", most: int, seed: int, purpose: str) -> "Loader":
    """Batches of at most ``most`` of ``images``, chosen by (seed, purpose), in their own order."""
    import torch

    from resnetlab.core.randomness import generator
    from resnetlab.data.loader import Loader
    from resnetlab.train.evaluate import BATCH

    chosen = torch.from_numpy(generator(seed, purpose).permutation(len(images))[:most]).sort().values
    return Loader(images.to(net.device), net.data.normalisation, BATCH, only=chosen)

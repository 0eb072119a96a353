"""Recompute activations (activation checkpointing): less memory for one more forward pass, the same results."""

import ctypes
from contextlib import AbstractContextManager, nullcontext, suppress
from math import sqrt
from types import TracebackType
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from resnetlab.core.errors import ConfigError, require

Net = TypeVar("Net", bound=nn.Module)


def recompute_blocks(net: Net, every: int | Literal["auto"] | None) -> Net:
    """Run each stage of ``net`` in segments of ``every`` blocks, changed in place and returned; None ends that.

    In training only the input of a segment is kept; what else its backward pass needs is computed a second time (Chen
    et al. 2016, arXiv:1604.06174). Outputs, gradients and running statistics are those of the unchanged network, to the
    bit, and so are the names of the parameters. The blocks of a VGG are its layers. ``"auto"`` is ``segment_length``.

    Raises ``ConfigError`` for ``every`` < 1 and for what is no network of the zoo.
    """
    stages = getattr(net, "stages", None)
    if not isinstance(stages, nn.Sequential):
        raise ConfigError(f"{type(net).__name__} has no stages to recompute; make a network with create_model")
    if every == "auto":
        every = segment_length(max((len(list(stage.children())) for stage in stages), default=1))
    require(every is None or every >= 1, "every", every, "at least 1 block")
    for number, stage in enumerate(stages):
        blocks = stage.children()
        changed = nn.Sequential(*blocks) if every is None else SegmentedStage(*blocks, every=every)
        changed.training = stage.training
        stages[number] = changed
    return net


def segment_length(blocks: int) -> int:
    """Blocks in a segment for the least memory, where a stage has so many: k = √(14 n / 32), rounded.

    What is kept are the inputs of the segments, 1 + 1/2 + 1/4 maps of the first stage's size for three stages, n/k
    times; what is computed again at once is k blocks of the first stage, 4 maps each. 7n/4k + 4k is least there.
    """
    return max(1, round(sqrt(14 * blocks / 32)))


class SegmentedStage(nn.Sequential):
    """A stage that recomputes its activations in segments of ``every`` blocks while gradients are on."""

    def __init__(self, *blocks: nn.Module, every: int = 1) -> None:
        super().__init__(*blocks)
        self.every = every

    def segments(self) -> list[nn.Sequential]:
        """The blocks in groups of ``every``, the last group with what is left."""
        blocks = list(self)
        return [nn.Sequential(*blocks[first : first + self.every]) for first in range(0, len(blocks), self.every)]

    def forward(self, x: Tensor) -> Tensor:
        for segment in self.segments():
            x = _run(segment, x) if torch.is_grad_enabled() else segment(x)
        return x


def give_freed_memory_back() -> None:
    """Return free heap memory to the system (glibc; other C libraries ignore it).

    Small tensors that stay break the places of large ones that were freed, and the next segment's find none that is
    whole: one step of cifar_resnet1202 with 128 images took 12 GiB for the 0.8 in use.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _run(segment: nn.Sequential, x: Tensor) -> Tensor:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), HeldStatistics(segment)

    if not x.is_cuda:
        give_freed_memory_back()
    out: Tensor = checkpoint(segment, x, use_reentrant=False, context_fn=contexts)
    return out


class HeldStatistics(AbstractContextManager[None]):
    """Inside, BN normalises with batch statistics as in training, but keeps its running statistics.

    Without this a recomputed batch counts twice, and running means are off by up to 0.35 (as timm's are). A momentum
    of 0 rather than no running statistics at all: the recomputation must save the same tensors as the first pass did.
    On the CPU memory that the segment before has freed is given back first.
    """

    def __init__(self, segment: nn.Module) -> None:
        self.on_cuda = any(parameter.is_cuda for parameter in segment.parameters())
        self.norms = [module for module in segment.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def __enter__(self) -> None:
        if not self.on_cuda:
            give_freed_memory_back()
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count

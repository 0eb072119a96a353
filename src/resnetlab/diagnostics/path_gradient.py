"""A forward pass of a residual network in pieces, so that the gradient can go back along any one path."""

from collections.abc import Collection
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from math import inf, isfinite, log

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.core.errors import ConfigError
from resnetlab.diagnostics.probes import eval_mode
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.recompute import SegmentedStage


@dataclass
class _Way:
    """One of a block's two ways: what it gave, and the leaf that the rest of the net went on with in its place."""

    out: Tensor
    leaf: Tensor


@dataclass
class _Passage:
    """One block of the tape: the leaf that it started from in place of what ``arrived``, and its two ways."""

    arrived: Tensor
    start: Tensor
    branch: _Way = field(init=False)
    shortcut: _Way = field(init=False)


class Tape(AbstractContextManager["Tape"]):
    """A forward pass cut into pieces at the ends of every branch and shortcut, so that each can go back alone.

    A cut is a leaf of equal value in place of the tensor; the pass computes the same bits with and without it.
    """

    def __init__(self, net: nn.Module) -> None:
        self.blocks: list[_Passage] = []
        self._modules = [module for module in net.modules() if isinstance(module, ResidualBlock)]
        self._hooks = ExitStack()

    def __enter__(self) -> "Tape":
        for block in self._modules:
            assert block.shortcut is not None
            for handle in (
                block.register_forward_pre_hook(self._enter),
                block.drop.register_forward_hook(self._leave_branch),
                block.shortcut.register_forward_hook(self._leave_shortcut),
            ):
                self._hooks.callback(handle.remove)
        return self

    def __exit__(self, *_error: object) -> None:
        self._hooks.close()

    def end(self, images: Tensor, loss: Tensor) -> None:
        """What the first piece starts from, and what the last one ends in."""
        self.images, self.loss = images, loss

    def _enter(self, _block: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        self.blocks.append(_Passage(arrived=x, start=_leaf(x)))
        return (self.blocks[-1].start,)

    def _leave_branch(self, _module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        self.blocks[-1].branch = _cut(out)
        return self.blocks[-1].branch.leaf

    def _leave_shortcut(self, _module: nn.Module, _inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        self.blocks[-1].shortcut = _cut(out)
        return self.blocks[-1].shortcut.leaf

    def gradient(self, chosen: Collection[int]) -> tuple[Tensor, float]:
        """The gradient at the images through the branches of the ``chosen`` blocks and the shortcuts of the others.

        As a tensor of norm 1 and the natural logarithm of its norm: that of hundreds of branches is no float32. The
        logarithm of zero is -inf.
        """
        end, gradient, size = self.loss, None, 0.0
        for number in reversed(range(len(self.blocks))):
            passage = self.blocks[number]
            way = passage.branch if number in chosen else passage.shortcut
            gradient = _back(way.out, passage.start, _back(end, way.leaf, gradient))
            gradient, norm = _normalised(gradient)
            size += log(norm) if norm else -inf
            end = passage.arrived
        gradient, norm = _normalised(_back(end, self.images, gradient))
        return gradient, size + (log(norm) if norm else -inf)

    def log_gradient(self, chosen: Collection[int]) -> float:
        """log10 of the norm of ``gradient``: -inf for zero, NaN for a gradient that is not finite."""
        return self.gradient(chosen)[1] / log(10)


def _cut(out: Tensor) -> _Way:
    # An identity hands on its input; the sum needs a tensor of its own to tell both ways apart.
    return _Way(out=out, leaf=_leaf(out))


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_()


def _back(end: Tensor, start: Tensor, gradient: Tensor | None) -> Tensor:
    (found,) = torch.autograd.grad(end, start, gradient, retain_graph=True)
    return found


def _normalised(gradient: Tensor) -> tuple[Tensor, float]:
    """The gradient at norm 1, and its norm. A zero stays; what is not finite has the norm NaN."""
    norm = float(torch.linalg.vector_norm(gradient, dtype=torch.float64))
    if not isfinite(norm):
        return gradient, float("nan")
    return (gradient / norm if norm else gradient), norm


def record(net: nn.Module, images: Tensor, labels: Tensor) -> Tape:
    """The tape of one batch. Raises ``ConfigError`` for a network that is not made of blocks with shortcuts."""
    blocks = [module for module in net.modules() if isinstance(module, ResidualBlock)]
    if not blocks or any(block.shortcut is None for block in blocks):
        raise ConfigError(
            f"{type(net).__name__} has no shortcuts here, so there is one path through it, of full length; "
            "give a residual network"
        )
    if any(isinstance(module, SegmentedStage) for module in net.modules()):
        raise ConfigError("a network under checkpoint_blocks forgets its pieces; load it again without")
    state = {name: tensor.detach() for name, tensor in net.named_parameters()}
    state |= {name: buffer.clone() for name, buffer in net.named_buffers()}
    images = _leaf(images)
    with eval_mode(net, batch_norms=True), torch.enable_grad(), Tape(net) as tape:
        tape.end(images, F.cross_entropy(functional_call(net, state, (images,)), labels))
    return tape

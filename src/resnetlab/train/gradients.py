"""Gradients by depth: ‖∇W‖ and ‖W‖ of every block for one batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import hypot
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from resnetlab.models.blocks import ResidualBlock
from resnetlab.records.gradients import BlockGradient, GradientMoment, moment
from resnetlab.train.moments import (
    Call,
    blocks_of,
    cosine,
    cosines,
    effective_rank,
    finite,
    left_as_it_was,
    neighbours,
    singular_values,
    tapped,
)

MOST_TRACED = 64
"""Images of a run's trace, at most."""


def traced_of(share: int, precision: str) -> int:
    """How many images of a micro-batch of ``share`` are traced. The trace is in float32: in mixed precision half of
    them take the memory that the step takes."""
    return min(MOST_TRACED, share if precision == "fp32" else max(2, share // 2))


def block_gradients(net: nn.Module, images: Tensor, labels: Tensor, seed: int = 0) -> list[BlockGradient]:
    """The gradient of the mean cross-entropy with respect to the weights of each block, from input to head.

    Norms are L2 over the convolutions and matrices of the block's branch; a layer outside of blocks counts as one of
    its own. The pass is in training mode, so BN takes the statistics of the batch ``(N, C, H, W)``, and what a network
    drops at random is a function of ``seed``; of frozen weights the gradient is taken too. The network is left as it
    was: gradients, BN statistics, modes and what is frozen.
    """
    weights = weights_by_block(net)
    with left_as_it_was(net, seed) as call:
        loss = F.cross_entropy(call(images), labels)
        return norms_by_block(weights, _gradients(loss, weights))


def _gradients(loss: Tensor, weights: Mapping[str, Sequence[Tensor]]) -> dict[str, list[Tensor]]:
    """The gradients of the loss with respect to the weights, by block."""
    found = iter(torch.autograd.grad(loss, [weight for group in weights.values() for weight in group]))
    return {name: [next(found) for _ in group] for name, group in weights.items()}


def norms_by_block(
    weights: Mapping[str, Sequence[Tensor]], gradients: Mapping[str, Sequence[Tensor]]
) -> list[BlockGradient]:
    """‖∇W‖ and ‖W‖ of every block."""
    return [
        BlockGradient(block=name, gradient_norm=norm_of(gradients[name]), weight_norm=norm_of(group))
        for name, group in weights.items()
    ]


def weights_by_block(net: nn.Module) -> dict[str, list[Tensor]]:
    """The convolutions and matrices of every branch, by the name of its block; a layer outside of blocks by its own."""
    branches = {f"{name}.branch.": name for name, module in net.named_modules() if isinstance(module, ResidualBlock)}
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in net.named_parameters():
        if parameter.dim() < 2 or ".shortcut." in name or ".gate." in name:
            continue
        block = next((block for prefix, block in branches.items() if name.startswith(prefix)), None)
        groups.setdefault(block or name.removesuffix(".weight"), []).append(parameter)
    return groups


def norm_of(tensors: Sequence[Tensor]) -> float | None:
    """The L2 norm over all of the tensors together; None where it is not finite."""
    # In float64: the square of a gradient of 1e20 is no float32.
    norm = torch.stack([tensor.detach().double().norm() for tensor in tensors]).norm()
    return norm.item() if norm.isfinite() else None


@dataclass(kw_only=True)
class Trace:
    """Measurements of a network while it trains: ``moments`` after 1, 2, 4, 8 … steps of the run.

    ``measure`` is given the network that is kept and the number of steps done, and must leave the network, its
    gradients and the random state as they were. Of several ranks each calls it at the same steps, so the ranks may
    speak with each other in it. With ``changes`` each moment also has how far the step just done has moved the weights
    that are trained. ``steps`` are those of the whole run, once it has ended.
    """

    measure: Callable[[nn.Module, int], GradientMoment] | None = None
    changes: bool = False
    moments: list[GradientMoment] = field(default_factory=list)
    steps: int = 0
    before: dict[str, list[Tensor]] = field(default_factory=dict)

    def remember_if_due(self, net: nn.Module, step: int) -> None:
        """Keep the weights of ``net`` before a step, counted from 1, if the moment after it says what that changed."""
        if self.measure is not None and self.changes and not step & (step - 1):
            self.before = {name: [w.detach().clone() for w in group] for name, group in weights_by_block(net).items()}

    def measure_if_due(self, net: nn.Module, step: int, trained: nn.Module | None = None) -> float:
        """Measure ``net`` after a step that is a power of two; the seconds it took. Only then the device is waited
        for. ``trained`` is the network whose weights were remembered, where that is another one."""
        if self.measure is None or step & (step - 1):
            return 0.0
        device = next(net.parameters()).device
        if device.type == "cuda":
            # The steps that are queued are training's own time.
            torch.cuda.synchronize(device)
        started = perf_counter()
        # A compiled net would keep a graph for this batch, and might take it for training's smaller ones too.
        with torch.compiler.set_stance("force_eager"):
            found = self.measure(net, step)
        if self.before:
            before, self.before = self.before, {}
            change, by_block = relative_changes(before, weights_by_block(trained or net))
            found = replace(found, change=change, largest_change=largest(by_block.values()))
        self.moments.append(found)
        return perf_counter() - started


def relative_changes(
    before: Mapping[str, Sequence[Tensor]], after: Mapping[str, Sequence[Tensor]]
) -> tuple[float | None, dict[str, float | None]]:
    """‖W' - W‖/‖W‖ over all weights together, and of every block. None where it is not finite, or W is zero."""
    moved = {name: norm_of([b.detach() - a for a, b in zip(before[name], after[name], strict=True)]) for name in before}
    sizes = {name: norm_of(group) for name, group in before.items()}
    whole = _ratio(_together(moved.values()), _together(sizes.values()))
    return whole, {name: _ratio(moved[name], sizes[name]) for name in before}


def largest(values: Iterable[float | None]) -> float | None:
    """The largest of the numbers; None where one of them is none."""
    numbers = list(values)
    return None if None in numbers else max(value for value in numbers if value is not None)


def _together(norms: Iterable[float | None]) -> float | None:
    values = list(norms)
    return None if None in values else hypot(*(value for value in values if value is not None))


def _ratio(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


class GradientTrace:
    """What a run measures of the network that it keeps, on the ``batch`` of images ``(N, C, H, W)`` and labels.

    Plain nets with BN explode at initialisation, by a constant factor a block (Yang et al. 2019, arXiv:1902.08129), and
    the first steps change that most: so the moments lie close together at first. A run of T steps takes
    log2(T) + 3 passes of the batch forward and backward for it, in float32. Every rank takes the same images.

    With ``everything`` each moment also has the figures that ``GradientMoment`` says, for about two passes more.
    """

    def __init__(self, net: nn.Module, batch: tuple[Tensor, Tensor], seed: int, *, everything: bool = False) -> None:
        self.batch, self.seed = batch, seed
        self.near = neighbours(batch[0], seed) if everything else None
        self.start, self._first = self.measure(net, 0)
        self.between: Trace = Trace(measure=lambda net, step: self.measure(net, step)[1], changes=everything)

    def measure(self, net: nn.Module, step: int) -> tuple[list[BlockGradient], GradientMoment]:
        """The gradients of ``net`` as it is now, by block, and the moment after ``step`` steps."""
        if self.near is None:
            gradients = block_gradients(net, *self.batch, self.seed)
            return gradients, moment(step, gradients)
        return measure_all(net, *self.batch, self.near, self.seed, step)

    def moments(self, end: GradientMoment | None) -> list[GradientMoment]:
        """The whole trace in order; ``end`` is the moment after the last step of a run that has come to it."""
        found = [self._first, *self.between.moments]
        if end is None:
            return found
        # What the last step has changed is known where its number is a power of two.
        steps = {one.step: one for one in found}
        last = steps.get(end.step, end)
        end = replace(end, change=last.change, largest_change=last.largest_change)
        return [one for one in found if one.step < end.step] + [end]


def measure_all(
    net: nn.Module, images: Tensor, labels: Tensor, near: Tensor, seed: int, step: int
) -> tuple[list[BlockGradient], GradientMoment]:
    """``block_gradients``, and the moment after ``step`` steps with every figure that needs no step.

    ``near`` holds a neighbour of every image. It takes one pass forward and back, one to the first block's input on the
    neighbours, and one on each half of the batch; the most memory is that of the first, or of half a batch with two
    gradients.
    """
    weights = weights_by_block(net)
    blocks = blocks_of(net) or {"": net}
    first, last = dict([next(iter(blocks.items()))]), dict([list(blocks.items())[-1]])
    with left_as_it_was(net, seed) as call:
        with tapped(first, last) as one:
            loss = F.cross_entropy(call(images), labels)
            (x,), (features,) = one.inputs.values(), one.outputs.values()
            found = torch.autograd.grad(loss, [x, *(weight for group in weights.values() for weight in group)])
        ours, features = found[0], features.detach()
        rest = iter(found[1:])
        gradients = norms_by_block(weights, {name: [next(rest) for _ in group] for name, group in weights.items()})
        del loss, x, found, rest, one
        with tapped(first, {}) as other:
            loss = F.cross_entropy(call(near), labels)
            (theirs,) = torch.autograd.grad(loss, list(other.inputs.values()))
        del loss, other
        measured = replace(
            moment(step, gradients),
            correlation=finite(cosines(ours, theirs).mean()),
            agreement=_agreement(call, images, labels, weights),
            rank=effective_rank(singular_values(features)),
        )
        return gradients, measured


def _agreement(call: Call, images: Tensor, labels: Tensor, weights: Mapping[str, Sequence[Tensor]]) -> float | None:
    """The cosine between the gradients of two halves of the batch; None for fewer than four images."""
    half = len(images) // 2
    if half < 2:
        return None
    sides = [
        [
            gradient
            for group in _gradients(F.cross_entropy(call(images[part]), labels[part]), weights).values()
            for gradient in group
        ]
        for part in (slice(0, half), slice(half, 2 * half))
    ]
    return cosine(*sides)

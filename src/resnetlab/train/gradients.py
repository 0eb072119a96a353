"""Gradients by depth: ‖∇W‖ and ‖W‖ of every block for one batch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from resnetlab.core.randomness import derive_seed
from resnetlab.models.blocks import ResidualBlock
from resnetlab.records.gradients import BlockGradient, GradientMoment

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    weights = _weights_by_block(net)
    flat = [weight for group in weights.values() for weight in group]
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    modes = {module: module.training for module in net.modules()}
    frozen = [parameter for parameter in net.parameters() if not parameter.requires_grad]
    net.train().requires_grad_(True)
    try:
        with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
            torch.manual_seed(derive_seed(seed, "gradients"))
            loss = F.cross_entropy(functional_call(net, buffers, (images,)), labels)
            # Still in training mode: a checkpointed net computes parts of itself again on the way back.
            gradients = dict(zip(flat, torch.autograd.grad(loss, flat), strict=True))
    finally:
        # Mode by mode: of a net that is half frozen not every part is in training.
        for module, training in modes.items():
            module.training = training
        for parameter in frozen:
            parameter.requires_grad_(False)
    return [
        BlockGradient(
            block=name, gradient_norm=_norm([gradients[weight] for weight in group]), weight_norm=_norm(group)
        )
        for name, group in weights.items()
    ]


def _weights_by_block(net: nn.Module) -> dict[str, list[Tensor]]:
    branches = {f"{name}.branch.": name for name, module in net.named_modules() if isinstance(module, ResidualBlock)}
    groups: dict[str, list[Tensor]] = {}
    for name, parameter in net.named_parameters():
        if parameter.dim() < 2 or ".shortcut." in name or ".gate." in name:
            continue
        block = next((block for prefix, block in branches.items() if name.startswith(prefix)), None)
        groups.setdefault(block or name.removesuffix(".weight"), []).append(parameter)
    return groups


def _norm(tensors: list[Tensor]) -> float | None:
    # In float64: the square of a gradient of 1e20 is no float32.
    norm = torch.stack([tensor.detach().double().norm() for tensor in tensors]).norm()
    return norm.item() if norm.isfinite() else None


@dataclass(kw_only=True)
class Trace:
    """Measurements of a network while it trains: ``moments`` after 1, 2, 4, 8 … steps of the run.

    ``measure`` is given the network that is kept and the number of steps done, and must leave the network, its
    gradients and the random state as they were. Of several ranks each calls it at the same steps, so the ranks may
    speak with each other in it. ``steps`` are those of the whole run, once it has ended.
    """

    measure: Callable[[nn.Module, int], GradientMoment] | None = None
    moments: list[GradientMoment] = field(default_factory=list)
    steps: int = 0

    def measure_if_due(self, net: nn.Module, step: int) -> float:
        """Measure ``net`` after a step that is a power of two; the seconds it took. Only then the device is waited
        for."""
        if self.measure is None or step & (step - 1):
            return 0.0
        device = next(net.parameters()).device
        if device.type == "cuda":
            # The steps that are queued are training's own time.
            torch.cuda.synchronize(device)
        started = perf_counter()
        # A compiled net would keep a graph for this batch, and might take it for training's smaller ones too.
        with torch.compiler.set_stance("force_eager"):
            self.moments.append(self.measure(net, step))
        return perf_counter() - started


class GradientTrace:
    """‖∇W‖ and ‖W‖ by block of the network that a run keeps, on the ``batch`` of images ``(N, C, H, W)`` and labels.

    Plain nets with BN explode at initialisation, by a constant factor a block (Yang et al. 2019, arXiv:1902.08129), and
    the first steps change that most: so the moments lie close together at first. A run of T steps takes
    log2(T) + 3 passes of the batch forward and backward for it, in float32. Every rank takes the same images.
    """

    def __init__(self, net: "nn.Module", batch: "tuple[Tensor, Tensor]", seed: int) -> None:
        self.batch, self.seed = batch, seed
        self.start = self.measure(net)
        self.between: Trace = Trace(measure=self._moment)

    def measure(self, net: "nn.Module") -> list[BlockGradient]:
        """The gradients of ``net`` as it is now, by block."""
        return block_gradients(net, *self.batch, self.seed)

    def moments(self, end: list[BlockGradient] | None) -> list[GradientMoment]:
        """The whole trace in order; ``end`` are the gradients after the last step of a run that has come to it."""
        from resnetlab.records.gradients import moment

        found = [moment(0, self.start), *self.between.moments]
        if end is None:
            return found
        last = self.between.steps
        return [one for one in found if one.step < last] + [moment(last, end)]

    def _moment(self, net: "nn.Module", step: int) -> GradientMoment:
        from resnetlab.records.gradients import moment

        return moment(step, self.measure(net))

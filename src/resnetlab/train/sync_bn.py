"""Batch norm whose statistics are those of all ranks' batches together, on gloo as on nccl."""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class SumOverRanks(torch.autograd.Function):
    """y = Σ x over the ranks; each x has the gradient Σ ∂L/∂y over the ranks, since every rank's y holds it."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.BatchNorm2d):
    """y = (x - μ) / √(σ² + ε) · γ + β with μ and σ² over the ``(N, H, W)`` of every rank.

    torch's own class of this name refuses CPU tensors. Ranks may have batches of different sizes.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not dist.is_initialized() or dist.get_world_size() == 1:
            return super().forward(x)
        values = x if x.dtype == torch.float64 else x.float()
        axes = (0, 2, 3)
        count = torch.full((1,), values.numel() / values.shape[1], device=x.device)
        sums = torch.cat([values.sum(axes), count])
        sums = _sum(sums)
        mean = sums[:-1] / sums[-1]
        # Squares are summed around the common mean: E[x²] - μ² would lose the digits of a small variance.
        centred = values - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().sum(axes)) / sums[-1]
        self._track(mean.detach(), variance.detach(), sums[-1].detach())
        scale = torch.rsqrt(variance + self.eps) * self.weight
        out = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return out.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)


def _sum(x: Tensor) -> Tensor:
    total: Tensor = SumOverRanks.apply(x)  # type: ignore[no-untyped-call]
    return total


def synchronise_norms(net: nn.Module) -> None:
    """Let every batch norm of maps in ``net`` take its statistics over all ranks, in place; names and weights stay."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm

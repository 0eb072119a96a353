"""What is kept of a large tensor: norms, spreads, cosines and zeros, each at the cost of reading it about once.

A sum of squares in float32 is quick and, taken row by row, exact enough, but it overflows from 1e19 on and loses what
is below 1e-23. Signals of deep nets reach both; only then is float64 used.
"""

import torch
from torch import Tensor

SAFE = (1e-12, 1e15)
"""Norms between these are right in float32: no square on the way overflowed, none that matters was lost."""


def norm(tensor: Tensor) -> Tensor:
    """‖tensor‖, L2, as a float64 number on the tensor's device, to about 1e-7 of its value."""
    tensor = tensor.detach()
    # A GPU converts while it reads; on a CPU the converted copy would cost thirty times the sum.
    if tensor.dtype == torch.float32 and tensor.device.type == "cpu":
        rows = torch.linalg.vector_norm(tensor.flatten(2) if tensor.dim() > 2 else tensor, dim=-1)
        total: Tensor = torch.linalg.vector_norm(rows, dtype=torch.float64)
        if SAFE[0] < float(total) < SAFE[1]:
            return total
    exact: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float64)
    return exact


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """The cosine between the pictures of ``x`` and those of ``y``, both ``(N, …)``, averaged; 0 where one is zero."""
    x, y = x.detach().flatten(1), y.detach().flatten(1)
    if x.device.type == "cpu":
        norms = torch.linalg.vector_norm(x, dim=1).double() * torch.linalg.vector_norm(y, dim=1).double()
        if bool(((norms > SAFE[0]) & (norms < SAFE[1])).all()):
            mean: Tensor = (torch.linalg.vecdot(x, y).double() / norms).mean()
            return mean
    return torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=1, eps=1e-300).mean()


def spread(tensor: Tensor) -> Tensor:
    """The standard deviation of all values."""
    return tensor.detach().std(correction=0)


def zeros(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """The share of channels of ``(N, C, …)`` that are zero in every picture, at every place, and that of all values."""
    alive = tensor.detach().sign().abs_().flatten(2).sum(dim=2) if tensor.dim() > 2 else (tensor.detach() != 0).float()
    places = tensor[0, 0].numel()
    return (alive.sum(dim=0) == 0).double().mean(), 1 - alive.double().mean() / places

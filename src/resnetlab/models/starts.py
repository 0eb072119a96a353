"""Initial weights beyond a normal distribution: orthogonal, delta-orthogonal, Dirac and mirrored ones.

Each function makes a weight of a layer from standard normal draws, which come from that parameter's own stream.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor, nn

Layer = nn.Conv2d | nn.Linear
Normal = Callable[[tuple[int, ...]], Tensor]
Place = Literal["first", "branch", "head", "other"]
Shape = tuple[int, ...]

LARGE = 2**20
"""Entries of a matrix from which on its decomposition takes all of torch's threads."""


def orthogonal(draws: Tensor) -> Tensor:
    """The (semi-)orthogonal matrix ``(…, rows, columns)`` of normal ``draws`` of that shape, evenly distributed.

    Q of their QR decomposition with the signs that make R's diagonal positive; the shorter of rows and columns are
    orthonormal (Saxe et al. 2013, arXiv:1312.6120; ``torch.nn.init.orthogonal_``). Computed in float64, so that
    machines agree on the float32 numbers that it gives.
    """
    matrix = draws.double()
    wide = matrix.shape[-2] < matrix.shape[-1]
    with _few_threads(matrix.numel()):
        q, r = torch.linalg.qr(matrix.mT if wide else matrix)
    q = q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    found: Tensor = q.mT if wide else q
    return found.float()


@contextmanager
def _few_threads(entries: int) -> Iterator[None]:
    """One thread for a matrix of so few entries that several wait for each other: on a busy machine a hundred times as
    long as they compute."""
    threads = torch.get_num_threads()
    if entries < LARGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def orthogonal_weight(shape: Shape, normal: Normal) -> Tensor:
    """A weight that is (semi-)orthogonal as a matrix with a row for each output: ``(out, in · k · k)``."""
    return orthogonal(normal((shape[0], prod(shape[1:])))).reshape(shape)


def delta_orthogonal(shape: Shape, normal: Normal, groups: int = 1) -> Tensor:
    """A convolution whose centre tap is (semi-)orthogonal in each group and whose other taps are zero; or a matrix.

    Xiao et al. 2018, arXiv:1806.05393, Algorithm 1, which asks for in ≤ out: HᵀH = I, and each pixel keeps its norm.
    Here in > out is allowed: H Hᵀ = I, so H projects and no pixel's norm grows.
    """
    tap = orthogonal(normal((groups, shape[0] // groups, shape[1]))).reshape(shape[:2])
    return at_centre(tap, shape)


def at_centre(tap: Tensor, shape: Shape) -> Tensor:
    """A weight of that shape with the matrix ``tap`` ``(out, in)`` in the centre of its kernel, else zero."""
    weight = torch.zeros(shape)
    weight.view(*shape[:2], -1)[:, :, prod(shape[2:]) // 2] = tap
    return weight


def identity(shape: Shape, groups: int = 1) -> Tensor:
    """δ: output channel c of a group is its input channel c, as far as there are both (``torch.nn.init.dirac_``)."""
    return at_centre(torch.eye(shape[0] // groups, shape[1]).repeat(groups, 1), shape)


def mirrored(shape: Shape, normal: Normal, place: Place) -> Tensor:
    """[[W, −W], [−W, W]] with a delta-orthogonal W; [W; −W] in the first layer and [W, −W] in the head.

    Balduzzi et al. 2017, arXiv:1702.08591, §4.1. The first layer gives (z, −z); ReLU(z) and ReLU(−z) make Wz and −Wz
    of it, and so on. Widths are even.
    """
    outputs = shape[0] if place == "head" else shape[0] // 2
    inputs = shape[1] if place == "first" else shape[1] // 2
    weight = delta_orthogonal((outputs, inputs, *shape[2:]), normal)
    if place != "first":
        weight = torch.cat([weight, -weight], dim=1)
    return weight if place == "head" else torch.cat([weight, -weight])


def start_weight(layer: Layer, init: str, place: Place, normal: Normal, dirac_noise: float) -> Tensor:
    """The initial weight of a layer at that place of the network; ``init`` is one of ``Init`` but he and xavier.

    ``orthogonal`` and ``delta_orthogonal`` have the gain √2 that a ReLU takes, and 1 in the head. ``dirac``: δ +
    ``dirac_noise`` · He in branches, else He. ``lsuv``: orthogonal, before its scales are found. ``tat``:
    delta-orthogonal times √(out / in) where that is above 1, which keeps the mean square (Zhang et al. 2022, §2).
    """
    shape = tuple(layer.weight.shape)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    gain = 1.0 if place == "head" else sqrt(2)
    if init == "orthogonal":
        return orthogonal_weight(shape, normal) * gain
    if init == "lsuv":
        return orthogonal_weight(shape, normal)
    if init == "delta_orthogonal":
        return delta_orthogonal(shape, normal, groups) * gain
    if init == "looks_linear":
        return mirrored(shape, normal, place)
    if init == "tat":
        return delta_orthogonal(shape, normal, groups) * max(1.0, sqrt(shape[0] / (shape[1] * groups)))
    he = normal(shape) * (gain / sqrt(prod(shape[1:])))
    return identity(shape, groups) + dirac_noise * he if place == "branch" else he

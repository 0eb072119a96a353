"""One net whose every number follows from four numbers, in float64 to 1e-10: y = x + a x, block after block.

With x one number an image and blocks of factor 1 + a: the signal before block k is P_k = Π_{j<k} (1 + a_j) of the
input, and the gradient behind it Q_k = Π_{j>k} (1 + a_j) of that at the end. The head gives the logits z and -z, so
p = 1 / (1 + e^(-2z)) is the probability of class 0, and ∂L/∂z = 2 (p - [y = 0]) / N.
"""

from math import exp, log10, prod, sqrt

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnetlab.diagnostics import residuals, signal
from resnetlab.diagnostics.probes import Probe
from resnetlab.models.blocks import ResidualBlock
from resnetlab.models.shortcuts import IdentityShortcut
from resnetlab.records import gradients as flow
from resnetlab.train.gradients import block_gradients

A = (0.5, -0.25, 2.0, 1.0)
X, LABELS = (0.3, -0.2, 0.1, 0.7, -0.4), (0, 1, 1, 0, 0)
N, BLOCKS = len(X), range(len(A))

FACTOR = [1.5, 0.75, 3.0, 2.0]
"""1 + a."""
BEFORE = [1.0, 1.5, 1.125, 3.375]
"""P_k."""
BEHIND = [4.5, 6.0, 2.0, 1.0]
"""Q_k."""
END = 6.75


def near(value: float):
    return pytest.approx(value, rel=1e-10, abs=1e-10)


class Net(nn.Module):
    """``(N, 1)`` to ``(N, 2)``; plain blocks give a x."""

    def __init__(self, plain: bool = False) -> None:
        super().__init__()
        blocks = [
            ResidualBlock(nn.Linear(1, 1, bias=False), None if plain else IdentityShortcut(), activation=nn.Identity())
            for _ in A
        ]
        self.stages = nn.Sequential(nn.Sequential(*blocks))
        self.head = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            for block, a in zip(blocks, A, strict=True):
                block.branch.weight.fill_(a)
            self.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        self.double()

    def forward(self, x):
        return self.head(self.stages(x))


def batch():
    return torch.tensor(X, dtype=torch.float64).view(-1, 1), torch.tensor(LABELS)


def end_gradients(end: float = END) -> list[float]:
    """∂L/∂z of each image, for z = ``end`` · x."""
    return [2 * (1 / (1 + exp(-2 * end * x)) - (label == 0)) / N for x, label in zip(X, LABELS, strict=True)]


def length(values) -> float:
    return sqrt(sum(value**2 for value in values))


def read(net):
    x, labels = batch()
    with Probe(net) as probe:
        F.cross_entropy(net(x.requires_grad_()), labels).backward()
    return probe.statistics()


def test_the_numbers_above_are_what_they_say():
    for k in BLOCKS:
        assert FACTOR[k] == 1 + A[k]
        assert BEFORE[k] == prod(FACTOR[:k])
        assert BEHIND[k] == prod(FACTOR[k + 1 :])
    assert prod(FACTOR) == END


def test_statistics_of_every_block_are_products():
    x, g = length(X), length(end_gradients())
    for k, found in enumerate(read(Net())):
        assert found.block == f"stages.0.{k}"
        assert found.input_norm == found.shortcut_norm == near(BEFORE[k] * x)
        assert found.branch_norm == near(abs(A[k]) * BEFORE[k] * x)
        assert found.ratio == near(abs(A[k]))
        assert found.cosine == near(1.0)
        assert found.input_rms == near(BEFORE[k] * x / sqrt(N))
        assert found.output_rms == near(FACTOR[k] * BEFORE[k] * x / sqrt(N))
        assert found.gradient_out == found.gradient_shortcut == near(BEHIND[k] * g)
        assert found.gradient_branch == near(abs(A[k]) * BEHIND[k] * g)
        assert found.gradient_in == near(FACTOR[k] * BEHIND[k] * g)
        assert found.gradient_in_rms == near(FACTOR[k] * BEHIND[k] * g / sqrt(N))
        assert found.gradient_out_rms == near(BEHIND[k] * g / sqrt(N))
        mean = sum(X) / N
        std = sqrt(sum((value - mean) ** 2 for value in X) / N)
        assert found.responses == [near(abs(A[k]) * BEFORE[k] * std)]
        assert (found.dead, found.zeros) == (0, 0)


def test_a_plain_block_has_a_branch_beside_its_input_and_no_shortcut():
    ends = [a * prod(A[:k]) for k, a in enumerate(A)]
    g = length(end_gradients(prod(A)))
    for k, found in enumerate(read(Net(plain=True))):
        assert found.shortcut_norm is found.gradient_shortcut is None
        assert found.ratio == near(abs(A[k]))
        assert found.branch_norm == near(abs(ends[k]) * length(X))
        assert found.cosine == near(1.0 if A[k] > 0 else -1.0)
        assert found.gradient_in == found.gradient_branch == near(abs(prod(A[k:])) * g)


def test_summary_is_of_the_medians_of_a():
    """|a| is 1/4, 1/2, 1, 2 and the share through the shortcut 1 / (1 + |a|)."""
    found = residuals.summarise(read(Net()))
    assert (found.verdict, found.idle) == ("rewriting", [])
    assert found.ratio == near((0.5 + 1) / 2)
    assert found.share == near((1 / 1.5 + 1 / 2) / 2)
    assert found.cosine == near(1.0)


def test_signal_and_gradient_grow_by_the_product():
    found = signal.judge(read(Net()), {})
    assert found.forward == near(log10(END))
    assert found.backward == near(log10(END))


def test_gradients_of_weights_are_products_too():
    """∂L/∂a_k = Σ_n x_n ∂L/∂z_n P_k Q_k, and of the head's two rows ± Σ_n (∂L/∂z_n / 2) 6.75 x_n."""
    net = Net()
    found = {gradient.block: gradient for gradient in block_gradients(net, *batch())}
    core = abs(sum(x * g for x, g in zip(X, end_gradients(), strict=True)))
    for k in BLOCKS:
        assert found[f"stages.0.{k}"].gradient_norm == near(core * BEFORE[k] * BEHIND[k])
        assert found[f"stages.0.{k}"].weight_norm == near(abs(A[k]))
    assert found["head"].gradient_norm == near(core * END / sqrt(2))
    assert found["head"].weight_norm == near(sqrt(2))
    # The slope over 0, 1, 2, 3 by hand: (-3 v_0 - v_1 + v_2 + 3 v_3) / 10.
    v = [log10(core * BEFORE[k] * BEHIND[k] / abs(A[k])) for k in BLOCKS]
    growth = -3 * (-3 * v[0] - v[1] + v[2] + 3 * v[3]) / 10
    assert flow.judge(list(found.values())).growth == near(growth)

from math import sqrt

import pytest
import torch
from torch.nn import functional as F

from resnetlab.diagnostics import probes as amounts


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("shape", [(3, 5), (3, 4, 6, 6)])
def test_norm_and_cosine_equal_float64_at_any_scale(scale, shape):
    x, y = torch.randn(2, *shape)
    assert amounts.norm(scale * x).item() == pytest.approx((scale * x).double().norm().item(), rel=1e-6)
    expected = F.cosine_similarity((scale * x).double().flatten(1), y.double().flatten(1), dim=1, eps=1e-300).mean()
    assert amounts.cosine(scale * x, y).item() == pytest.approx(expected.item(), rel=1e-5)


def test_float32_alone_would_overflow():
    """The control of the test above."""
    assert torch.linalg.vector_norm(torch.full((3, 5), 1e30)).isinf()


def test_zero_and_nan_are_told_as_such():
    x = torch.randn(3, 4, 2, 2)
    assert amounts.norm(torch.zeros(3, 4)) == 0
    assert amounts.cosine(x, torch.zeros_like(x)) == 0
    assert amounts.norm(torch.tensor([[float("nan")]])).isnan()


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3, 3)])
def test_zeros_are_counted_by_channel_and_value(shape):
    x = torch.randn(shape).clamp(min=0.0)
    x[:, 1], x[:, 3] = 0, -1e-30
    dead, zeros = amounts.zeros(x)
    assert dead.item() == pytest.approx(sum(not (x[:, c] != 0).any() for c in range(6)) / 6)
    assert zeros.item() == pytest.approx((x == 0).double().mean().item(), abs=1e-12)


def test_amounts_of_a_few_numbers_are_those_counted_by_hand():
    x = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    y = torch.tensor([[4.0, 3.0], [-7.0, 0.0]], dtype=torch.float64)
    assert amounts.norm(x).item() == pytest.approx(sqrt(29), abs=1e-10)
    assert amounts.cosine(x, y).item() == pytest.approx((24 / 25 + 0) / 2, abs=1e-10)
    assert amounts.cosine(x, 3 * x).item() == pytest.approx(1, abs=1e-10)
    assert amounts.cosine(x, -x).item() == pytest.approx(-1, abs=1e-10)
    # The mean is 9/4, and the squares have the mean 29/4.
    assert amounts.spread(x).item() == pytest.approx(sqrt(29 / 4 - 81 / 16), abs=1e-10)
    maps = torch.zeros(2, 3, 2, 2, dtype=torch.float64)  # 24 values; channel 1 is dead, channel 0 in one image alone
    maps[0, 0, 1, 1] = maps[0, 2, 0, 0] = maps[1, 2, 0, 1] = 1
    dead, zeros = amounts.zeros(maps)
    assert dead.item() == pytest.approx(1 / 3, abs=1e-10)
    assert zeros.item() == pytest.approx(21 / 24, abs=1e-10)


def test_norm_in_float64_is_exact():
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    assert amounts.norm(x).item() == pytest.approx(x.square().sum().sqrt().item(), abs=1e-10)
    assert amounts.spread(x).item() == pytest.approx(x.var(correction=0).sqrt().item(), abs=1e-10)

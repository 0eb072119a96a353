"""RandAugment and TrivialAugment."""

import pytest
import torch
from scipy.stats import chisquare

from resnetlab.data.policies import (
    BINS,
    OPERATIONS,
    SIGNED,
    apply_policy,
    draw_rand,
    draw_trivial,
    rand_strengths,
    trivial_strengths,
)
from tests.data.references import photographs

NUMBER = {operation.__name__: number for number, operation in enumerate(OPERATIONS)}


@pytest.mark.parametrize(
    ("name", "rand", "trivial"),
    # At magnitude 9 of 30 and at 30, from torchvision's tables for images of 64 pixels.
    [
        ("identity", (0, 0), (0, 0)),
        ("shear_x", (0.09, 0.3), (0.297, 0.99)),
        ("translate_y", (8.7009, 29.003), (9.6, 32)),
        ("rotate", (9, 30), (40.5, 135)),
        ("brightness", (0.27, 0.9), (0.297, 0.99)),
        ("sharpness", (0.27, 0.9), (0.297, 0.99)),
        ("posterize", (7, 4), (6, 2)),
        ("solarize", (178.5, 0), (178.5, 0)),
        ("equalize", (0, 0), (0, 0)),
    ],
)
def test_strengths_are_torchvisions(name, rand, trivial):
    for table, expected in ((rand_strengths(64), rand), (trivial_strengths(), trivial)):
        assert table.shape == (14, 31)
        assert table[NUMBER[name]][[9, 30]].tolist() == pytest.approx(expected, rel=1e-4)


def test_rand_draws_every_operation_alike_and_both_signs():
    draws = draw_rand(20_000, 2, 9, 64, seed=0, epoch=1)
    assert draws.chosen.shape == draws.strengths.shape == (20_000, 2)
    pairs = draws.chosen[:, 0].long() * 14 + draws.chosen[:, 1]
    assert chisquare(torch.bincount(pairs, minlength=196).numpy()).pvalue > 0.001
    for number, operation in enumerate(OPERATIONS):
        found = draws.strengths[draws.chosen == number]
        size = rand_strengths(64)[number, 9]
        assert torch.equal(found.abs(), size.expand(len(found)))
        share = (found < 0).float().mean().item()
        assert share == (pytest.approx(0.5, abs=4 * 0.5 / len(found) ** 0.5) if operation in SIGNED else 0)


def test_trivial_draws_one_operation_at_any_magnitude():
    draws = draw_trivial(20_000, seed=0, epoch=1)
    assert draws.chosen.shape == (20_000, 1)
    assert chisquare(torch.bincount(draws.chosen[:, 0]).numpy()).pvalue > 0.001
    sharp = draws.strengths[draws.chosen == NUMBER["shear_x"]]
    bins = (sharp.abs() / 0.99 * 30).round().long()
    assert chisquare(torch.bincount(bins, minlength=BINS).numpy()).pvalue > 0.001
    assert (sharp < 0).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_policy_draws_differ_by_seed_and_epoch():
    first = draw_trivial(50, seed=0, epoch=1)
    assert torch.equal(first.strengths, draw_trivial(50, seed=0, epoch=1).strengths)
    for other in (draw_trivial(50, seed=1, epoch=1), draw_trivial(50, seed=0, epoch=2)):
        assert not torch.equal(first.chosen, other.chosen)


@pytest.mark.parametrize("channels", [1, 3])
def test_policy_is_each_images_own_operations_in_turn(channels):
    images = photographs(32)[:, :channels].repeat(20, 1, 1, 1)
    draws = draw_rand(40, 3, 20, 32, seed=0, epoch=1)
    found = apply_policy(images, draws.chosen, draws.strengths)
    for image, pixels, chosen, strengths in zip(images, found, draws.chosen.tolist(), draws.strengths, strict=True):
        one = image[None]
        for number, strength in zip(chosen, strengths, strict=True):
            one = OPERATIONS[number](one, strength[None])
        assert torch.equal(pixels, one[0])
    assert not torch.equal(found, apply_policy(images, draws.chosen.flip(1), draws.strengths.flip(1)))

"""Mixup and cutmix."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.nn import functional as F

from resnetlab.data.transforms import Box, Mixture, cut_mixture, draw_mixtures, mix_images, mixed_targets, partners
from tests.data.references import load_kornia

CPU = torch.device("cpu")
MIXTURES = [Mixture(weight=0.3), Mixture(weight=1 - 6 / 64, box=Box(1, 3, 4, 7))]


def images(n: int) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8)


def test_partners_are_neighbours_and_an_odd_last_one_stays_alone():
    assert partners(6, CPU).tolist() == [1, 0, 3, 2, 5, 4]
    assert partners(5, CPU).tolist() == [1, 0, 3, 2, 4]
    assert partners(1, CPU).tolist() == [0]


def test_mixup_is_the_weighted_mean_of_a_pair():
    x = images(3)
    mixed = mix_images(x, Mixture(weight=0.25))
    torch.testing.assert_close(mixed[0], 0.25 * x[0] + 0.75 * x[1])
    torch.testing.assert_close(mixed[1], 0.25 * x[1] + 0.75 * x[0])
    assert torch.equal(mixed[2], x[2])


def test_cutmix_takes_the_box_of_the_partner_and_leaves_its_input():
    x = images(2)
    before = x.clone()
    mixed = mix_images(x, MIXTURES[1])
    expected = x.clone()
    expected[:, :, 1:3, 4:7] = x.flip(0)[:, :, 1:3, 4:7]
    assert torch.equal(mixed, expected)
    assert torch.equal(x, before)


def test_mixtures_are_kornias_for_the_same_parameters():
    kornia = load_kornia()
    x, labels = images(4).abs(), torch.tensor([2, 0, 1, 1])
    shape = {"batch_prob": torch.ones(4), "forward_input_shape": torch.tensor(x.shape)}
    pairs = partners(4, CPU)
    mixup = kornia.augmentation.RandomMixUpV2(p=1.0, data_keys=["input", "class"])
    params = shape | {"mixup_pairs": pairs, "mixup_lambdas": torch.full((4,), 0.7), "dtype": torch.tensor(0)}
    theirs, _ = mixup(x, labels, params=params)
    torch.testing.assert_close(mix_images(x, MIXTURES[0]), theirs)  # theirs weighs the partner
    cutmix = kornia.augmentation.RandomCutMixV2(p=1.0, data_keys=["input", "class"], use_correct_lambda=True)
    corners = torch.tensor([[4, 1], [6, 1], [6, 2], [4, 2]])
    params = shape | {"mix_pairs": pairs[None], "crop_src": corners.expand(1, 4, 4, 2), "dtype": torch.tensor(0)}
    params["image_shape"] = torch.tensor(x.shape[2:])
    theirs, _ = cutmix(x, labels, params=params)
    assert torch.equal(mix_images(x, MIXTURES[1]), theirs)


@pytest.mark.parametrize("mixture", MIXTURES, ids=["mixup", "cutmix"])
def test_even_slices_mix_as_the_whole_batch(mixture):
    x, labels = images(12), torch.arange(12) % 5
    whole = mix_images(x, mixture)
    targets = mixed_targets(labels, mixture.weight, 5, 0.1)
    for sizes in ([6, 6], [4, 8], [2] * 6):
        assert torch.equal(torch.cat([mix_images(part, mixture) for part in x.split(sizes)]), whole)
        parts = [mixed_targets(part, mixture.weight, 5, 0.1) for part in labels.split(sizes)]
        assert torch.equal(torch.cat(parts), targets)
    # An odd slice parts a pair, so it does not.
    assert not torch.equal(torch.cat([mix_images(part, mixture) for part in x.split([5, 7])]), whole)


@pytest.mark.parametrize("mixture", MIXTURES, ids=["mixup", "cutmix"])
def test_mixed_images_keep_their_memory_format(mixture):
    x = images(4)
    last = mix_images(x.contiguous(memory_format=torch.channels_last), mixture)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, mix_images(x, mixture))
    assert mix_images(x, mixture).is_contiguous()


def test_targets_of_a_hand_solved_pair():
    targets = mixed_targets(torch.tensor([0, 2, 1]), 0.75, num_classes=4, smoothing=0.2)
    low, high = 0.05, 0.85
    expected = [[0.75 * high + 0.25 * low, low, 0.75 * low + 0.25 * high, low]]
    expected += [[0.75 * low + 0.25 * high, low, 0.75 * high + 0.25 * low, low], [low, high, low, low]]
    torch.testing.assert_close(targets, torch.tensor(expected))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_mixed_targets_is_the_mix_of_torchs_losses(smoothing):
    logits, labels, weight = torch.randn(6, 5), torch.tensor([0, 1, 2, 3, 4, 0]), 0.3
    own, other = (F.cross_entropy(logits, y, label_smoothing=smoothing) for y in (labels, labels[partners(6, CPU)]))
    found = F.cross_entropy(logits, mixed_targets(labels, weight, 5, smoothing))
    torch.testing.assert_close(found, weight * own + (1 - weight) * other)
    assert abs(found - own) > 1e-3


def test_box_is_clipped_and_the_weight_is_that_of_what_is_left():
    # sqrt(1 - 0.75) of 8 pixels is 4: two to each side of row 1, of which one is outside, and of column 7.
    assert cut_mixture(0.75, (1, 7), 8) == Mixture(weight=1 - 9 / 64, box=Box(0, 3, 5, 8))
    assert cut_mixture(0.75, (4, 4), 8) == Mixture(weight=0.75, box=Box(2, 6, 2, 6))
    assert cut_mixture(1.0, (4, 4), 8).weight == 1
    assert cut_mixture(0.0, (4, 4), 8) == Mixture(weight=0.0, box=Box(0, 8, 0, 8))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_weights_are_beta_distributed(alpha):
    weights = [mixture.weight for mixture in draw_mixtures(5000, 32, alpha, 0, seed=0, epoch=1)]
    assert kstest(weights, "beta", args=(alpha, alpha)).pvalue > 0.001
    assert kstest(weights, "beta", args=(alpha + 0.2, alpha)).pvalue < 1e-6


def test_cutmix_boxes_are_in_the_image_and_their_weight_is_exact():
    for mixture in draw_mixtures(2000, 31, 0, 1.0, seed=0, epoch=1):
        box = mixture.box
        assert 0 <= box.top <= box.bottom <= 31
        assert 0 <= box.left <= box.right <= 31
        assert mixture.weight == 1 - (box.bottom - box.top) * (box.right - box.left) / 31**2


def test_with_both_each_step_takes_one_and_its_mixup_stays_the_same():
    both = draw_mixtures(4000, 32, 0.2, 1.0, seed=0, epoch=1)
    boxed = [mixture.box is not None for mixture in both]
    assert np.mean(boxed) == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    alone = draw_mixtures(4000, 32, 0.2, 0, seed=0, epoch=1)
    assert all(a == b for a, b in zip(alone, both, strict=True) if b.box is None)
    assert both != draw_mixtures(4000, 32, 0.2, 1.0, seed=0, epoch=2)
    assert both != draw_mixtures(4000, 32, 0.2, 1.0, seed=1, epoch=1)


@pytest.mark.parametrize("alpha", [1e-300, 1e-6, 100.0])
def test_weights_stay_shares_at_the_limits_of_alpha(alpha):
    for mixture in draw_mixtures(200, 8, alpha, alpha, seed=0, epoch=1):
        assert 0 <= mixture.weight <= 1

"""Crops, mirror images, blanking and mixing: beside Pillow, kornia, scipy and cases solved by hand."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, kstest
from torch.nn import functional as F

from resnetlab.data.dataset import Split
from resnetlab.data.transforms import (
    Box,
    Mixture,
    ResizedCrop,
    blank,
    crop_padded,
    crop_resized,
    cut_mixture,
    cutout_boxes,
    draw_mixtures,
    draw_offsets,
    draw_uniforms,
    erasing_boxes,
    flip_,
    mix_images,
    mixed_targets,
    partners,
    resized_boxes,
)
from tests.data.references import load_kornia

IMAGENET = (0.08, 1.0)


def noise(n: int = 6, channels: int = 3, height: int = 12, width: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(6, 3, 12, 12), (5, 1, 8, 11), (1, 2, 3, 3)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crop_of_padded_images_is_each_ones_window(shape, dtype):
    images = noise(*shape).to(dtype).contiguous(memory_format=torch.channels_last)
    offsets = draw_offsets(shape[0], 2, seed=1, epoch=1)
    padded = F.pad(images, (2, 2, 2, 2))
    by_hand = [p[:, r : r + shape[2], c : c + shape[3]] for p, (r, c) in zip(padded, offsets.tolist(), strict=True)]
    assert torch.equal(crop_padded(images, offsets, 2), torch.stack(by_hand))


def test_crop_draws_are_those_of_earlier_versions():
    """Published records depend on them."""
    assert draw_offsets(4, 4, seed=0, epoch=1).tolist() == [[1, 8], [3, 3], [0, 4], [8, 8]]


@pytest.mark.parametrize("side", [12, 64], ids=["together", "each alone"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flip_mirrors_the_chosen_and_no_other_in_place(side, layout):
    images = noise(4, 3, side, side)
    given = images.contiguous(memory_format=layout).clone()
    flipped = flip_(given, torch.tensor([True, False, False, True]))
    assert flipped is given
    assert torch.equal(flipped[0, :, :, 0], images[0, :, :, -1])
    assert torch.equal(flipped, torch.stack([images[0].flip(-1), images[1], images[2], images[3].flip(-1)]))
    assert torch.equal(flip_(given.clone(), torch.tensor([False] * 4)), given)


def test_boxes_of_hand_solved_numbers():
    uniforms = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1 - 2**-20, 0.5, 0.9, 0.9], [1 - 2**-20, 0.0, 0.0, 0.9999]])
    boxes = resized_boxes(uniforms, 32, 32, (0.25, 1.0))
    # Share 0.625 and ratio 1: sqrt(640) = 25.3. The whole. Share 1 and ratio 3/4: 36.95 is cut to 32, times 27.7.
    assert boxes.tolist() == [[0, 0, 25, 25], [0, 0, 32, 32], [0, 4, 32, 28]]


def test_boxes_stay_inside_at_the_limits_of_every_number():
    ends = torch.tensor([0.0, 1 - 2**-24])
    uniforms = torch.cartesian_prod(ends, ends, ends, ends)
    for height, width in ((1, 1), (2, 7), (224, 224), (8, 300)):
        for scale in (IMAGENET, (1e-6, 1e-6), (1.0, 1.0)):
            top, left, tall, wide = resized_boxes(uniforms, height, width, scale).unbind(1)
            assert min(top.min(), left.min()) >= 0
            assert min(tall.min(), wide.min()) >= 1
            assert (top + tall).max() <= height
            assert (left + wide).max() <= width


def test_boxes_have_uniform_shares_log_uniform_ratios_and_uniform_places():
    side, n = 4096, 20_000
    uniforms = draw_uniforms(n, 4, 0, "box", 1)
    top, left, tall, wide = resized_boxes(uniforms, side, side, (0.08, 0.5)).double().unbind(1)
    share = (tall * wide / side**2 - 0.08) / 0.42
    ratio = ((wide / tall).log() - np.log(3 / 4)) / (2 * np.log(4 / 3))
    for values in (share, ratio, top / (side - tall), left / (side - wide)):
        assert kstest(values.numpy(), "uniform").pvalue > 0.001
    assert kstest((wide / tall).numpy(), "uniform", args=(3 / 4, 7 / 12)).pvalue < 1e-6  # log-uniform is not uniform
    # Which of the places that fit, for boxes of one size.
    starts = resized_boxes(torch.cat([torch.full((n, 2), 0.5), uniforms[:, 2:]], dim=1), 8, 8, (0.25, 0.25))
    counts = torch.bincount(starts[:, 0] * 5 + starts[:, 1], minlength=25)
    assert chisquare(counts.numpy()).pvalue > 0.001


@pytest.mark.parametrize(("height", "width", "channels"), [(12, 12, 3), (32, 20, 1), (224, 224, 3)])
def test_resized_crop_is_pillows_bilinear_one_within_a_level(height, width, channels):
    images = noise(8, channels, height, width)
    boxes = resized_boxes(torch.rand(8, 4), height, width, IMAGENET)
    found = crop_resized(images, boxes)
    wrong = crop_resized(images, boxes.roll(1, 0))
    for image, (top, left, tall, wide), pixels, other in zip(images, boxes.tolist(), found, wrong, strict=True):
        for plane, mine, control in zip(image, pixels, other, strict=True):
            box = (left, top, left + wide, top + tall)
            cut = Image.fromarray(plane.numpy()).crop(box)
            theirs = np.array(cut.resize((width, height), Image.Resampling.BILINEAR), dtype=int)
            assert np.abs(theirs - mine.numpy()).max() <= 1
            assert np.abs(theirs - control.numpy()).max() > 1


def test_resized_crop_of_the_whole_is_the_image():
    images = noise()
    assert torch.equal(crop_resized(images, torch.tensor([[0, 0, 12, 12]] * 6)), images)


def test_split_cuts_each_sample_by_its_own_numbers_in_any_batch():
    images = noise(10)
    split = Split(images=images, labels=torch.zeros(10, dtype=torch.int64))
    crop = ResizedCrop(uniforms=draw_uniforms(10, 4, 0, "box", 1), scale=IMAGENET)
    whole = crop_resized(images, resized_boxes(crop.uniforms, 12, 12, IMAGENET))
    order = torch.randperm(10)
    for sizes in ([10], [3, 7], [1] * 10):
        assert torch.equal(torch.cat(list(split.batches(order.split(sizes), crop))), whole[order])
    assert torch.equal(next(split.batches([order])), images[order])
    assert not torch.equal(whole, images)


def test_draws_differ_by_seed_epoch_and_purpose_and_a_longer_set_keeps_its_head():
    first = draw_uniforms(100, 4, 0, "box", 1)
    assert torch.equal(first, draw_uniforms(200, 4, 0, "box", 1)[:100])
    for other in (
        draw_uniforms(100, 4, 1, "box", 1),
        draw_uniforms(100, 4, 0, "box", 2),
        draw_uniforms(100, 4, 0, "erasing", 1),
    ):
        assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() < 1


def test_blank_sets_each_ones_box_and_nothing_else():
    images = torch.rand(3, 2, 5, 6) + 1
    boxes = torch.tensor([[1, 2, 3, 1], [-2, 4, 4, 9], [0, 0, 0, 0]])
    expected = images.clone()
    expected[0, :, 1:4, 2:3] = 0
    expected[1, :, 0:2, 4:6] = 0
    before = images.clone()
    assert torch.equal(blank(images, boxes), expected)
    assert torch.equal(images, before)


def test_blank_keeps_the_memory_format():
    images = torch.rand(3, 2, 5, 6).contiguous(memory_format=torch.channels_last)
    blanked = blank(images, torch.tensor([[1, 2, 3, 1]] * 3))
    assert blanked.is_contiguous(memory_format=torch.channels_last)


def test_erasing_blanks_what_kornia_erases_from_the_same_boxes():
    erase = load_kornia().augmentation.RandomErasing(p=1.0)
    images = torch.rand(4, 3, 24, 20) + 0.1
    boxes = erasing_boxes(draw_uniforms(4, 5, 0, "erasing", 1), 24, 20, probability=1.0)
    top, left, tall, wide = boxes.unbind(1)
    params = {"widths": wide, "heights": tall, "xs": left, "ys": top, "values": torch.zeros(4)}
    params |= {"batch_prob": torch.ones(4), "forward_input_shape": torch.tensor(images.shape)}
    assert torch.equal(blank(images, boxes), erase(images, params=params))
    assert not torch.equal(blank(images, boxes.roll(1, 0)), erase(images, params=params))


def test_erasing_has_its_probability_shares_and_ratios():
    side, n = 4096, 20_000
    boxes = erasing_boxes(draw_uniforms(n, 5, 0, "erasing", 1), side, side, probability=0.3)
    erased = boxes[:, 2] > 0
    assert erased.float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / n) ** 0.5)
    assert torch.equal(erased, boxes[:, 3] > 0)
    tall, wide = boxes[erased][:, 2:].double().unbind(1)
    whole = (tall < side) & (wide < side)
    assert whole.float().mean() > 0.95
    ratio = (wide / tall).log()
    share = (tall * wide / side**2 - 0.02) / 0.31
    # Where a side was cut, the share is smaller and the ratio nearer to 1; a third of the area is the only place.
    small = share < 0.9
    assert kstest(share[small].numpy(), "uniform", args=(0, 0.9)).pvalue > 0.001
    ends = np.log(0.3), np.log(3.3) - np.log(0.3)
    assert kstest(ratio[small].numpy(), "uniform", args=ends).pvalue > 0.001
    assert not erasing_boxes(draw_uniforms(n, 5, 0, "erasing", 1), side, side, probability=0.0).any()


def test_erasing_boxes_stay_inside():
    for height, width in ((1, 1), (3, 40), (32, 32)):
        boxes = erasing_boxes(draw_uniforms(2000, 5, 0, "erasing", 1), height, width, probability=1.0)
        assert boxes[:, :2].min() >= 0
        assert (boxes[:, 0] + boxes[:, 2]).max() <= height
        assert (boxes[:, 1] + boxes[:, 3]).max() <= width


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_has_its_side_around_any_pixel_and_is_clipped_at_the_border(side):
    n = 5000
    boxes = cutout_boxes(draw_uniforms(n, 2, 0, "cutout", 1), 6, 8, side)
    assert torch.equal(boxes[:, 2:], torch.full((n, 2), side))
    centres = boxes[:, :2] + side // 2
    counts = torch.bincount(centres[:, 0] * 8 + centres[:, 1], minlength=48)
    assert len(counts) == 48
    assert chisquare(counts.numpy()).pvalue > 0.001
    zeros = (blank(torch.ones(n, 1, 6, 8), boxes) == 0).flatten(1).sum(1)
    assert zeros.max() == side**2
    assert zeros.min() == (side - side // 2) ** 2


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

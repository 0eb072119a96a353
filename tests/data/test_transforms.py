"""Crops and mirror images."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare, kstest
from torch.nn import functional as F

from resnetlab.data.dataset import Split
from resnetlab.data.transforms import (
    ResizedCrop,
    crop_padded,
    crop_resized,
    draw_offsets,
    draw_uniforms,
    flip,
    resized_boxes,
)

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


def test_flip_mirrors_the_chosen_and_no_other():
    images = noise(2)
    flipped = flip(images, torch.tensor([True, False]))
    assert torch.equal(flipped[0, :, :, 0], images[0, :, :, -1])
    assert torch.equal(flipped, torch.stack([images[0].flip(-1), images[1]]))


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

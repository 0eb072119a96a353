"""Random erasing and cutout."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

from resnetlab.data.transforms import blank, cutout_boxes, draw_uniforms, erasing_boxes
from tests.data.references import load_kornia


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

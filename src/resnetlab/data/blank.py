"""Random erasing and cutout: boxes of normalised pictures set to 0, the mean of the training pictures."""

import torch
from torch import Tensor

from resnetlab.data.transforms import fitting_boxes

ERASED_SHARE = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)


def erasing_boxes(uniforms: Tensor, height: int, width: int, probability: float) -> Tensor:
    """Boxes (top, left, height, width), ``(N, 4)``, from five numbers in [0, 1) each; empty where nothing is erased.

    Share of the area and ratio of the sides as in Zhong et al. 2017 (0.02 to 0.33, 0.3 to 3.3, the ratio log-uniform as
    in torchvision); a side longer than the picture is cut to it. The first number decides whether.
    """
    boxes = fitting_boxes(uniforms[:, 1:], height, width, ERASED_SHARE, ERASED_RATIO)
    return boxes * (uniforms[:, :1] < probability)


def cutout_boxes(uniforms: Tensor, height: int, width: int, side: int) -> Tensor:
    """Squares of ``side`` pixels, ``(N, 4)``, from two numbers in [0, 1) each.

    The centre is any pixel of the picture with equal chance, so a part of the square may lie outside (DeVries & Taylor
    2017).
    """
    centres = (uniforms.double() * torch.tensor([height, width])).long()
    return torch.cat([centres - side // 2, torch.full_like(centres, side)], dim=1)


def blank(images: Tensor, boxes: Tensor) -> Tensor:
    """A copy of the pictures ``(N, C, H, W)`` with 0 in each one's box."""
    top, left, tall, wide = boxes[:, :, None].unbind(1)
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top) & (rows < top + tall)
    in_columns = (columns >= left) & (columns < left + wide)
    return images.clone().masked_fill_((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)

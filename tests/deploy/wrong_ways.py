"""Eight wrong ways to preprocess an image, each of which users have had."""

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from resnetlab.deploy.preprocessing import Preprocessing


def upright(path):
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def resized(image, side, how=Image.Resampling.BILINEAR, crop=1.0):
    """The short side resized to side / crop, and the middle cut out."""
    short = round(side / crop)
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), how)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def without_antialias(path, side):
    pixels = torch.from_numpy(np.asarray(upright(path)).copy()).permute(2, 0, 1)[None].float()
    assert pixels.shape[2] == pixels.shape[3], "the images of these tests are squares"
    small = F.interpolate(pixels, (side, side), mode="bilinear", align_corners=False, antialias=False)
    return small[0].permute(1, 2, 0).round().byte().numpy()


def sideways(path, side):
    with Image.open(path) as image:
        return resized(image.convert("RGB"), side)


def right(path, side):
    return resized(upright(path), side)


FAULTS = {
    "no antialias": without_antialias,
    "nearest": lambda path, side: resized(upright(path), side, Image.Resampling.NEAREST),
    "bicubic": lambda path, side: resized(upright(path), side, Image.Resampling.BICUBIC),
    "crop of 0.875": lambda path, side: resized(upright(path), side, crop=0.875),
    "EXIF ignored": sideways,
    "inverted": lambda path, side: 255 - right(path, side),
    "divided twice": lambda path, side: (right(path, side) / 255).round().astype(np.uint8),
    "wrong range of values": lambda path, side: (right(path, side) * (16 / 255)).round().astype(np.uint8),
}


class Wrong(Preprocessing):
    """The preprocessing of a bundle, done by one of the functions above."""

    def pixels(self, image, white=None):
        return self._in_channels(self.how(image, self.side))

    @classmethod
    def of(cls, preprocessing, how):
        made = cls(**vars(preprocessing))
        object.__setattr__(made, "how", how)
        return made

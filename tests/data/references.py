"""What the images of the tests are compared with."""

import warnings
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images


def load_kornia() -> ModuleType:
    """kornia, which takes a second to import: only where it is compared with. Its own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("kornia")


def photographs(side: int = 32) -> torch.Tensor:
    """A temple and a flower, ``(2, 3, side, side)`` as uint8."""
    small = [Image.fromarray(image).resize((side, side)) for image in load_sample_images().images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).contiguous()


def as_pillow(image: torch.Tensor) -> Image.Image:
    """An image ``(C, H, W)``, C of 1 or 3."""
    array = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array[..., 0] if len(image) == 1 else array))


def from_pillow(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array[..., None] if array.ndim == 2 else array).permute(2, 0, 1)

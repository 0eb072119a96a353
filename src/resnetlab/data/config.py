"""The settings of images: how they are read, and how they are varied. This file loads no torch."""

from dataclasses import dataclass
from typing import Literal

from resnetlab.core.errors import require, require_choice

OnBad = Literal["error", "skip"]
Checked = Literal["full", "head", "none"]
Check = Literal["auto", "full", "head", "none"]
Policy = Literal["none", "rand", "trivial"]
SOURCES = {
    "digits": "the 8×8 handwritten digits that come with scikit-learn",
    "folder:DIR": "a folder of image files, one folder a class; DIR alone will do",
    "idx:FOLDER": "a folder of MNIST or Fashion-MNIST files",
    "cifar10:FOLDER": "CIFAR-10, binary or Python version",
    "cifar100:FOLDER": "CIFAR-100 with its fine labels, binary or Python version",
    "npz:FILE": "arrays x_train, y_train, x_test and y_test of numpy",
    "parquet:DIR": "Parquet files with images, as on the Hugging Face Hub (extra hub)",
    "shards:PATTERN": "tar files as WebDataset has them, KEY.jpg beside KEY.cls: a folder, or train-{000..099}.tar",
    "hub:OWNER/NAME": "a data set of the Hugging Face Hub (extra hub)",
}
"""What --data takes, and what it is."""
ARRAYS = ("digits", "idx", "cifar10", "cifar100", "npz")
"""Sources that are arrays, taken as they are; the others are encoded images, which can be read in any size."""
SCALE = "#scale="
"""Behind the file of npz:FILE, before the values that are black and white: BLACK..WHITE."""


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """How images and labels are read; size and damage are settings of images in files, tables and shards.

    Raises ``ConfigError`` for values that make no images.
    """

    image_size: int | None = None
    """Side of the square in pixels; by default the images' own where all have one size, else 224."""
    on_bad: OnBad = "error"
    """error stops with the list of images that cannot be read; skip leaves them out and counts them. In training, skip
    takes the next readable image of the class for one that cannot be read."""
    check: Check = "auto"
    """What is looked at before training: full decodes every image, head reads the head of each file, none opens none.
    auto is full where that takes less than a minute, else head, and says so. Files that an index knows are not opened
    again."""
    workers: int = 0
    """Processes that decode images while the network trains; 0 decodes in this one. As many open the images before, or
    with 0 as many as there are cores. The result is the same."""
    compact_labels: bool = False
    """Leave out classes that no image has, and number the others anew: for labels from 1 on, or with gaps."""

    def __post_init__(self) -> None:
        require(self.image_size is None or 1 <= self.image_size <= 8192, "image_size", self.image_size, "1 to 8192")
        require_choice("on_bad", self.on_bad, ("error", "skip"))
        require_choice("check", self.check, ("auto", "full", "head", "none"))
        require(0 <= self.workers <= 256, "workers", self.workers, "from 0 to 256")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training images are augmented; what is drawn for an image is a function of (seed, epoch, sample).

    Raises ``ConfigError`` for values that make no augmentation.
    """

    crop_padding: int | None = None
    """Pixels around a training image before a random crop of its own size; by default an eighth of its side (4 for 32
    pixels, as in the paper), 0 with random_resized_crop and in a study."""
    flip: bool = False
    """Mirror training images left to right, each with probability 1/2."""
    random_resized_crop: bool = False
    """Cut a random box and resize it to the image's size, as for ImageNet."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of the box of random_resized_crop, as a share of the image."""
    policy: Policy = "none"
    """rand: RandAugment; trivial: TrivialAugment."""
    rand_operations: int = 2
    """RandAugment: operations applied to each image, one after another."""
    rand_magnitude: int = 9
    """RandAugment: magnitude, from 0 to 30."""
    erasing: float = 0.0
    """Probability of blanking a random box of an image."""
    cutout: int = 0
    """Side in pixels of a random square that is blanked in every image; 0 is off."""
    mixup: float = 0.0
    """alpha of mixup: pairs of images and of targets are averaged with a weight from Beta(alpha, alpha); 0 is off."""
    cutmix: float = 0.0
    """alpha of cutmix: a box of each image comes from another; 0 is off. With mixup, each step takes one of them."""

    def __post_init__(self) -> None:
        require(
            self.crop_padding is None or self.crop_padding >= 0, "crop_padding", self.crop_padding, "0 or more pixels"
        )
        low, high = self.crop_scale
        require(0 < low <= high <= 1, "crop_scale", self.crop_scale, "two rising shares, above 0 and at most 1")
        require(
            not (self.random_resized_crop and self.crop_padding),
            "crop_padding",
            self.crop_padding,
            "left alone with random_resized_crop: an image is cut once",
        )
        require_choice("policy", self.policy, ("none", "rand", "trivial"))
        require(1 <= self.rand_operations <= 10, "rand_operations", self.rand_operations, "from 1 to 10")
        require(0 <= self.rand_magnitude <= 30, "rand_magnitude", self.rand_magnitude, "from 0 to 30")
        require(0 <= self.erasing <= 1, "erasing", self.erasing, "a probability")
        require(self.cutout >= 0, "cutout", self.cutout, "0 or more pixels")
        require(0 <= self.mixup <= 100, "mixup", self.mixup, "from 0 to 100")
        require(0 <= self.cutmix <= 100, "cutmix", self.cutmix, "from 0 to 100")

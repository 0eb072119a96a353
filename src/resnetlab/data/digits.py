"""The 1,797 handwritten digits that scikit-learn ships in its wheel: the embedded default, read without a download."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from resnetlab.data.dataset import ImageData, Split

TEST_SHARE = 0.2


def read_digits(split_seed: int) -> ImageData:
    """8×8 pictures of 17 grey levels, split 1437 / 360, stratified by class; ``split_seed`` decides which go where.

    Source: UCI ML repository, Alpaydin & Kaynak 1998.
    """
    digits = load_digits()
    indices = np.arange(len(digits.target))
    train, test = train_test_split(indices, test_size=TEST_SHARE, random_state=split_seed, stratify=digits.target)
    images = torch.from_numpy(digits.images.astype(np.uint8)).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    return ImageData(
        source="digits",
        train=Split(images=images[train], labels=labels[train]),
        test=Split(images=images[test], labels=labels[test]),
        classes=tuple(str(digit) for digit in digits.target_names),
    )

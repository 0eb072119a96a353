"""Golden images of other channels than a file can have, and of large photographs."""

import numpy as np
from PIL import Image

from resnetlab.deploy.golden import MOST_PIXELS, golden_pixels, write_golden_images
from resnetlab.deploy.preprocessing import Preprocessing


def test_images_of_four_channels_are_kept_as_arrays(tmp_path):
    originals = list(np.random.default_rng(0).integers(0, 256, (3, 5, 5, 4), np.uint8))
    files = write_golden_images(tmp_path, originals, 5)
    assert files == ["golden/000.npy", "golden/001.npy", "golden/002.npy"]
    preprocessing = Preprocessing(side=5, channels=4, white=9, mean=(1.0,) * 4, std=(1.0,) * 4)
    assert np.array_equal(golden_pixels(tmp_path, files, preprocessing), np.stack(originals))


def test_large_photograph_is_averaged_over_whole_squares(tmp_path):
    large = np.kron(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40, np.ones((600, 600), np.uint8))
    (file,) = write_golden_images(tmp_path, [np.repeat(large[:, :, None], 3, 2)], 28)
    kept = np.asarray(Image.open(tmp_path / file))
    assert kept.shape == (900, 600, 3), "a half of 1800 × 1200, on its side"
    assert kept.shape[0] * kept.shape[1] <= MOST_PIXELS
    assert set(np.unique(kept)) == set(np.unique(large))

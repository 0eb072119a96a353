"""RandAugment and TrivialAugment: the operations beside Pillow and kornia, the draws beside their distributions."""

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from scipy.stats import chisquare

from resnetlab.data import policies as operations
from resnetlab.data.policies import (
    BINS,
    OPERATIONS,
    SIGNED,
    apply_policy,
    draw_rand,
    draw_trivial,
    rand_strengths,
    trivial_strengths,
)
from tests.data.references import as_pillow, from_pillow, load_kornia, photographs

NUMBER = {operation.__name__: number for number, operation in enumerate(OPERATIONS)}


@pytest.mark.parametrize(
    ("name", "rand", "trivial"),
    # At magnitude 9 of 30 and at 30, from torchvision's tables for images of 64 pixels.
    [
        ("identity", (0, 0), (0, 0)),
        ("shear_x", (0.09, 0.3), (0.297, 0.99)),
        ("translate_y", (8.7009, 29.003), (9.6, 32)),
        ("rotate", (9, 30), (40.5, 135)),
        ("brightness", (0.27, 0.9), (0.297, 0.99)),
        ("sharpness", (0.27, 0.9), (0.297, 0.99)),
        ("posterize", (7, 4), (6, 2)),
        ("solarize", (178.5, 0), (178.5, 0)),
        ("equalize", (0, 0), (0, 0)),
    ],
)
def test_strengths_are_torchvisions(name, rand, trivial):
    for table, expected in ((rand_strengths(64), rand), (trivial_strengths(), trivial)):
        assert table.shape == (14, 31)
        assert table[NUMBER[name]][[9, 30]].tolist() == pytest.approx(expected, rel=1e-4)


def test_rand_draws_every_operation_alike_and_both_signs():
    draws = draw_rand(20_000, 2, 9, 64, seed=0, epoch=1)
    assert draws.chosen.shape == draws.strengths.shape == (20_000, 2)
    pairs = draws.chosen[:, 0].long() * 14 + draws.chosen[:, 1]
    assert chisquare(torch.bincount(pairs, minlength=196).numpy()).pvalue > 0.001
    for number, operation in enumerate(OPERATIONS):
        found = draws.strengths[draws.chosen == number]
        size = rand_strengths(64)[number, 9]
        assert torch.equal(found.abs(), size.expand(len(found)))
        share = (found < 0).float().mean().item()
        assert share == (pytest.approx(0.5, abs=4 * 0.5 / len(found) ** 0.5) if operation in SIGNED else 0)


def test_trivial_draws_one_operation_at_any_magnitude():
    draws = draw_trivial(20_000, seed=0, epoch=1)
    assert draws.chosen.shape == (20_000, 1)
    assert chisquare(torch.bincount(draws.chosen[:, 0]).numpy()).pvalue > 0.001
    sharp = draws.strengths[draws.chosen == NUMBER["shear_x"]]
    bins = (sharp.abs() / 0.99 * 30).round().long()
    assert chisquare(torch.bincount(bins, minlength=BINS).numpy()).pvalue > 0.001
    assert (sharp < 0).float().mean().item() == pytest.approx(0.5, abs=0.06)


def test_policy_draws_differ_by_seed_and_epoch():
    first = draw_trivial(50, seed=0, epoch=1)
    assert torch.equal(first.strengths, draw_trivial(50, seed=0, epoch=1).strengths)
    for other in (draw_trivial(50, seed=1, epoch=1), draw_trivial(50, seed=0, epoch=2)):
        assert not torch.equal(first.chosen, other.chosen)


@pytest.mark.parametrize("channels", [1, 3])
def test_policy_is_each_images_own_operations_in_turn(channels):
    images = photographs(32)[:, :channels].repeat(20, 1, 1, 1)
    draws = draw_rand(40, 3, 20, 32, seed=0, epoch=1)
    found = apply_policy(images, draws.chosen, draws.strengths)
    for image, pixels, chosen, strengths in zip(images, found, draws.chosen.tolist(), draws.strengths, strict=True):
        one = image[None]
        for number, strength in zip(chosen, strengths, strict=True):
            one = OPERATIONS[number](one, strength[None])
        assert torch.equal(pixels, one[0])
    assert not torch.equal(found, apply_policy(images, draws.chosen.flip(1), draws.strengths.flip(1)))


NEAREST = Image.Resampling.NEAREST
AFFINE = Image.Transform.AFFINE

PILLOW = {
    "identity": lambda image, _: image,
    "shear_x": lambda image, s: image.transform(image.size, AFFINE, (1, s, 0, 0, 1, 0), NEAREST),
    "shear_y": lambda image, s: image.transform(image.size, AFFINE, (1, 0, 0, s, 1, 0), NEAREST),
    "translate_x": lambda image, s: image.transform(image.size, AFFINE, (1, 0, -int(s), 0, 1, 0), NEAREST),
    "translate_y": lambda image, s: image.transform(image.size, AFFINE, (1, 0, 0, 0, 1, -int(s)), NEAREST),
    "rotate": lambda image, s: image.rotate(s, NEAREST),
    "brightness": lambda image, s: ImageEnhance.Brightness(image).enhance(1 + s),
    "color": lambda image, s: ImageEnhance.Color(image).enhance(1 + s),
    "contrast": lambda image, s: ImageEnhance.Contrast(image).enhance(1 + s),
    "sharpness": lambda image, s: ImageEnhance.Sharpness(image).enhance(1 + s),
    "posterize": lambda image, s: ImageOps.posterize(image, int(s)),
    "solarize": lambda image, s: ImageOps.solarize(image, s),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
}


def made_images() -> list[torch.Tensor]:
    """Photographs, noise, noise of few levels, one colour, and sides that differ; each ``(C, H, W)``."""
    temple, flower = photographs(32)
    noise = torch.randint(0, 256, (3, 30, 21), dtype=torch.uint8)
    faint = torch.randint(90, 100, (3, 20, 31), dtype=torch.uint8)
    coloured = [temple, flower, noise, faint, torch.full((3, 8, 8), 7, dtype=torch.uint8)]
    return coloured + [image[:1] for image in coloured]


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=[operation.__name__ for operation in OPERATIONS])
def test_operation_gives_pillows_pixels_at_every_strength(number):
    operation = OPERATIONS[number]
    reference = PILLOW[operation.__name__]
    strengths = torch.cat([rand_strengths(32)[number], trivial_strengths()[number]]).unique()
    if operation in SIGNED:
        strengths = torch.cat([strengths, -strengths])
    for image in made_images():
        found = operation(image.expand(len(strengths), -1, -1, -1), strengths)
        for pixels, strength in zip(found, strengths.tolist(), strict=True):
            assert torch.equal(pixels, from_pillow(reference(as_pillow(image), strength))), (image.shape, strength)


@pytest.mark.parametrize("number", range(1, 12), ids=[operation.__name__ for operation in OPERATIONS[1:12]])
def test_operation_at_another_strength_gives_other_pixels(number):
    """The control of the test above: equal pixels say something about the strength."""
    image = photographs(32)
    weak, strong = trivial_strengths()[number][[10, 25]]
    operation = OPERATIONS[number]
    assert not torch.equal(operation(image, weak.expand(2)), operation(image, strong.expand(2)))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_each_image_has_its_own_strength_and_the_input_stays(operation):
    number = OPERATIONS.index(operation)
    images = photographs(16).repeat(4, 1, 1, 1)
    strengths = trivial_strengths()[number][torch.tensor([0, 3, 9, 14, 18, 22, 27, 30])]
    before = images.clone()
    together = operation(images, strengths)
    alone = [operation(images[i : i + 1], strengths[i : i + 1]) for i in range(8)]
    assert torch.equal(together, torch.cat(alone))
    assert torch.equal(images, before)
    assert together.dtype == torch.uint8


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 2, 2), (1, 3, 1, 5), (1, 1, 3, 2)])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_images_of_a_few_pixels_pass(operation, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert operation(images, torch.full((shape[0],), 0.3)).shape == shape


def test_hand_solved_rows():
    def row(operation: operations.Operation, values: list[int], strength: float) -> list[int]:
        return operation(torch.tensor(values, dtype=torch.uint8).view(1, 1, 1, -1), torch.tensor([strength])).tolist()[
            0
        ][0][0]

    assert row(operations.translate_x, [1, 2, 3], 1.9) == [0, 1, 2]
    assert row(operations.translate_x, [1, 2, 3], -1.9) == [2, 3, 0]
    assert row(operations.rotate, [1, 2, 3], 180) == [3, 2, 1]
    assert row(operations.brightness, [10, 200, 255], 0.5) == [15, 255, 255]
    assert row(operations.contrast, [10, 21], 1.0) == [4, 26]  # the mean of 15.5 is rounded to 16
    assert row(operations.posterize, [255, 129, 7], 2) == [192, 128, 0]
    assert row(operations.solarize, [127, 128, 255], 128) == [127, 127, 0]
    assert row(operations.autocontrast, [50, 101], 0) == [0, 255]
    assert row(operations.color, [50, 101], 0.9) == [50, 101]
    assert row(operations.equalize, [9] * 256 + [7] * 256, 0) == [255] * 256 + [0] * 256


def differing(found: torch.Tensor, expected: torch.Tensor, level: int = 0) -> float:
    """The share of values that differ by more than ``level``; kornia's images are from 0 to 1."""
    return ((found.float() - expected.mul(255)).abs() > level + 0.5).float().mean().item()


def test_operations_are_kornias_within_a_level():
    enhance = load_kornia().enhance
    images = photographs(32)
    floats = images.float() / 255
    change = torch.tensor([-0.6, 0.9])
    pairs = {
        operations.brightness: enhance.adjust_brightness_accumulative(floats, 1 + change),
        operations.contrast: enhance.adjust_contrast_with_mean_subtraction(floats, 1 + change),
        operations.color: enhance.adjust_saturation_with_gray_subtraction(floats, 1 + change),
        operations.sharpness: enhance.sharpness(floats, 1 + change),
    }
    for operation, expected in pairs.items():
        # Ours cut the fraction off twice, as Pillow does: of what is blended, and of the blend.
        assert differing(operation(images, change), expected, level=2) == 0, operation.__name__
        assert differing(operation(images, -change), expected, level=2) > 0.5, operation.__name__
    none = torch.zeros(2)
    # kornia's own rounding of 8 bits may lose one at each of its steps.
    assert differing(operations.equalize(images, none), enhance.equalize(floats), level=1) < 0.02
    bits = torch.tensor([3, 5])
    assert differing(operations.posterize(images, bits.float()), enhance.posterize(floats, bits)) < 0.02
    above = torch.tensor([100.0, 180.0])
    theirs = enhance.solarize(floats, thresholds=(above - 0.5) / 255)
    assert differing(operations.solarize(images, above), theirs) == 0


def test_geometry_is_kornias_but_for_ties():
    geometry = load_kornia().geometry.transform
    images = photographs(32)
    floats = images.float() / 255
    angles = torch.tensor([23.0, -71.0])
    assert differing(operations.rotate(images, angles), geometry.rotate(floats, angles, mode="nearest")) < 0.01
    assert differing(operations.rotate(images, -angles), geometry.rotate(floats, angles, mode="nearest")) > 0.5
    shifts = torch.tensor([[5.0, 0.0], [-3.0, 0.0]])
    moved = geometry.translate(floats, shifts, mode="nearest")
    assert differing(operations.translate_x(images, shifts[:, 0]), moved) == 0
    moved = geometry.translate(floats, shifts.flip(1), mode="nearest")
    assert differing(operations.translate_y(images, shifts[:, 0]), moved) == 0
    # kornia counts from the middle of the first pixel, so its row is half a pixel off.
    slopes = torch.tensor([0.23, -0.37])
    matrices = torch.eye(2, 3).repeat(2, 1, 1)
    matrices[:, 0, 1], matrices[:, 0, 2] = -slopes, -slopes / 2
    sheared = geometry.warp_affine(floats, matrices, (32, 32), mode="nearest")
    assert differing(operations.shear_x(images, slopes), sheared) < 0.01
    sheared = geometry.warp_affine(floats.mT, matrices, (32, 32), mode="nearest").mT
    assert differing(operations.shear_y(images, slopes), sheared) < 0.01

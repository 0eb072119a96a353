"""Images per second of each augmentation beside kornia's of the same name, in one run.

``python benchmarks/augment.py --out FILE`` writes the figures as JSON and shows them. Ours take uint8 and kornia's
floats from 0 to 1, each as it is made for; making the one from the other is not timed. Both get parameters that were
drawn before, but for the policies, whose draws are part of the figure. Ours and kornia's calls alternate.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import write_json
from resnetlab.data import policies as operations
from resnetlab.data.policies import PolicyDraws, apply_policy, draw_rand, draw_trivial
from resnetlab.data.transforms import (
    blank,
    crop_padded,
    crop_resized,
    draw_mixtures,
    draw_offsets,
    draw_uniforms,
    erasing_boxes,
    flip_,
    mix_images,
    resized_boxes,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import kornia
    from kornia import augmentation, enhance
    from kornia.geometry import transform

BATCH = 128
SIDES = (32, 64, 224)
ROUNDS = 5
SECONDS = 0.5
"""Least time that a pair is measured for, after at least ``ROUNDS`` rounds."""
Call = Callable[[], object]
Pairs = Iterator[tuple[str, Call, Call]]


def whole_images(images: Tensor) -> Pairs:
    """Crops, mirror images, blanking and mixing: (name, ours, kornia's)."""
    n, _, side, _ = images.shape
    floats = images.float() / 255
    padding = side // 8
    offsets = draw_offsets(n, padding, 0, 1)
    mirrored = draw_uniforms(n, 1, 0, "flip", 1)[:, 0] < 0.5
    boxes = resized_boxes(draw_uniforms(n, 4, 0, "box", 1), side, side, (0.08, 1.0))
    erased = erasing_boxes(draw_uniforms(n, 5, 0, "erasing", 1), side, side, 1.0)
    mixup, cutmix = (draw_mixtures(1, side, *alphas, 0, 1)[0] for alphas in ((1.0, 0), (0, 1.0)))
    theirs = {
        "crop": augmentation.RandomCrop((side, side), padding=padding, cropping_mode="slice"),
        "flip": augmentation.RandomHorizontalFlip(p=0.5),
        "resized crop": augmentation.RandomResizedCrop((side, side), cropping_mode="slice"),
        "erasing": augmentation.RandomErasing(p=1.0),
        "mixup": augmentation.RandomMixUpV2(p=1.0, data_keys=["input"]),
        "cutmix": augmentation.RandomCutMixV2(p=1.0, data_keys=["input"], use_correct_lambda=True),
    }
    ours: dict[str, Call] = {
        "crop": lambda: crop_padded(images, offsets, padding),
        "flip": lambda: flip_(images, mirrored),
        "resized crop": lambda: crop_resized(images, boxes),
        "erasing": lambda: blank(floats, erased),
        "mixup": lambda: mix_images(floats, mixup),
        "cutmix": lambda: mix_images(floats, cutmix),
    }
    for name, call in ours.items():
        yield name, call, replayed(theirs[name], floats)


def replayed(module: Any, floats: Tensor) -> Call:
    """kornia's augmentation with parameters that it drew once."""
    module(floats)
    params = module._params
    return lambda: module(floats, params=params)


def strokes(images: Tensor) -> Pairs:
    """The operations of policies, all images of a batch by the same one, each by its own strength."""
    n, _, side, _ = images.shape
    floats = images.float() / 255
    change = torch.linspace(-0.9, 0.9, n)
    shear, none = torch.stack([change, torch.zeros(n)], dim=1), torch.zeros(n)
    bits, angles, above = torch.arange(n) % 7 + 2, change * 100, (change + 1) * 127
    shifts = torch.stack([(change * side / 4).trunc(), none], dim=1)
    contrast = augmentation.RandomAutoContrast(p=1.0)
    yield "shear", lambda: operations.shear_x(images, change), lambda: transform.shear(floats, shear, mode="nearest")
    yield (
        "translate",
        lambda: operations.translate_x(images, shifts[:, 0]),
        lambda: transform.translate(floats, shifts, mode="nearest"),
    )
    yield "rotate", lambda: operations.rotate(images, angles), lambda: transform.rotate(floats, angles, mode="nearest")
    for name, operation, other in (
        ("brightness", operations.brightness, enhance.adjust_brightness_accumulative),
        ("color", operations.color, enhance.adjust_saturation_with_gray_subtraction),
        ("contrast", operations.contrast, enhance.adjust_contrast_with_mean_subtraction),
        ("sharpness", operations.sharpness, enhance.sharpness),
    ):
        yield name, lambda f=operation: f(images, change), lambda f=other: f(floats, 1 + change)  # type: ignore[misc]
    yield "posterize", lambda: operations.posterize(images, bits), lambda: enhance.posterize(floats, bits)
    yield "solarize", lambda: operations.solarize(images, above), lambda: enhance.solarize(floats, above / 255)
    yield "autocontrast", lambda: operations.autocontrast(images, none), replayed(contrast, floats)
    yield "equalize", lambda: operations.equalize(images, none), lambda: enhance.equalize(floats)


def policies(images: Tensor) -> Pairs:
    """RandAugment and TrivialAugment. kornia's takes one operation for a whole batch, ours one for each image."""
    n, _, side, _ = images.shape
    floats = images.float() / 255
    rand, trivial = augmentation.auto.RandAugment(n=2, m=9), augmentation.auto.TrivialAugment()

    def applied(draws: PolicyDraws) -> Tensor:
        return apply_policy(images, draws.chosen, draws.strengths)

    yield "rand", lambda: applied(draw_rand(n, 2, 9, side, 0, 1)), lambda: rand(floats)
    yield "trivial", lambda: applied(draw_trivial(n, 0, 1)), lambda: trivial(floats)


def alternate(ours: Call, theirs: Call) -> tuple[float, float]:
    """Median seconds of both, called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    ours(), theirs()
    started = perf_counter()
    while len(times[0]) < ROUNDS or perf_counter() - started < SECONDS:
        for call, taken in zip((ours, theirs), times, strict=True):
            before = perf_counter()
            call()
            taken.append(perf_counter() - before)
    return median(times[0]), median(times[1])


def main() -> None:
    """Measure every pair at every side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for side in SIDES:
        torch.manual_seed(0)
        images = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8)
        for kind in (whole_images, strokes, policies):
            for name, ours, theirs in kind(images):
                seconds = alternate(ours, theirs)
                row = {"name": name, "side": side, "ours": BATCH / seconds[0], "kornia": BATCH / seconds[1]}
                rows.append(row)
                ratio = seconds[1] / seconds[0]
                sys.stdout.write(
                    f"{side:4} {name:13}{row['ours']:12,.0f}{row['kornia']:12,.0f} images/s ×{ratio:.1f}\n"
                )
    environment = describe_environment("cpu", torch.get_num_threads()) | {"kornia": kornia.__version__}
    write_json(out, {"batch": BATCH, "environment": environment, "images_per_second": rows})


if __name__ == "__main__":
    main()

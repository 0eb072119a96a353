"""Everything that happens to training images, in order: crop, mirror, policy; after normalisation, blank and mix."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from resnetlab.core.errors import require
from resnetlab.data.config import AugmentConfig
from resnetlab.data.policies import PolicyDraws, apply_policy, draw_rand, draw_trivial
from resnetlab.data.transforms import (
    Mixture,
    ResizedCrop,
    blank,
    crop_padded,
    cutout_boxes,
    draw_mixtures,
    draw_offsets,
    draw_uniforms,
    erasing_boxes,
    flip_,
    mix_images,
    mixed_targets,
    require_pixels,
)


@dataclass(frozen=True, kw_only=True)
class Draws:
    """What was drawn for one epoch, by sample (the first dimension of all tensors) or by step; None where nothing was.

    ``offsets`` are those of ``crop_padded``, ``mirrored`` says which samples are, ``blanked`` has a tensor of boxes for
    each kind of blanking.
    """

    resized: ResizedCrop | None = None
    offsets: Tensor | None = None
    mirrored: Tensor | None = None
    policy: PolicyDraws | None = None
    blanked: tuple[Tensor, ...] = ()
    mixtures: tuple[Mixture, ...] = ()

    def to(self, device: torch.device) -> "Draws":
        """The same on a device, for as many batches as are taken from it."""
        return Draws(
            resized=self.resized and self.resized.to(device),
            offsets=None if self.offsets is None else self.offsets.to(device),
            mirrored=None if self.mirrored is None else self.mirrored.to(device),
            policy=self.policy and self.policy.to(device),
            blanked=tuple(boxes.to(device) for boxes in self.blanked),
            mixtures=self.mixtures,
        )


class Augmentation:
    """The augmentation of square images of ``side`` pixels, of ``num_classes`` classes with label ``smoothing``.

    Three calls make a batch from uint8 images, which ``Split.batches`` has already cut by ``draws.resized``:
    ``vary``, then ``blank`` once they are normalised, then ``mix``. With nothing switched on, each gives back what it
    was given.

    ``which`` are the numbers of the batch's samples. They are best on the CPU: policies are grouped there, and numbers
    from a device would be waited for.

    Raises ``ConfigError`` for a crop or a square that is larger than the image.
    """

    def __init__(self, config: AugmentConfig, side: int, num_classes: int, smoothing: float = 0.0) -> None:
        self.config = config
        self.side = side
        self.num_classes = num_classes
        self.smoothing = smoothing
        usual = 0 if config.random_resized_crop else side // 8
        self.padding = usual if config.crop_padding is None else config.crop_padding
        for setting, pixels in (("crop_padding", self.padding), ("cutout", config.cutout)):
            require(pixels <= side, setting, pixels, f"at most the side of the images, {side}")

    def draw(self, samples: int, steps: int, seed: int, epoch: int) -> Draws:
        """Everything for one epoch of ``samples`` in ``steps`` batches, on the CPU; nothing that is not switched on."""
        config = self.config
        resized = mirrored = None
        if config.random_resized_crop:
            resized = ResizedCrop(uniforms=draw_uniforms(samples, 4, seed, "box", epoch), scale=config.crop_scale)
        if config.flip:
            mirrored = draw_uniforms(samples, 1, seed, "flip", epoch)[:, 0] < 0.5
        return Draws(
            resized=resized,
            offsets=draw_offsets(samples, self.padding, seed, epoch) if self.padding else None,
            mirrored=mirrored,
            policy=self._draw_policy(samples, seed, epoch),
            blanked=tuple(self._draw_blanks(samples, seed, epoch)),
            mixtures=self._draw_mixtures(steps, seed, epoch),
        )

    def _draw_policy(self, samples: int, seed: int, epoch: int) -> PolicyDraws | None:
        if self.config.policy == "rand":
            count, magnitude = self.config.rand_operations, self.config.rand_magnitude
            return draw_rand(samples, count, magnitude, self.side, seed, epoch)
        return draw_trivial(samples, seed, epoch) if self.config.policy == "trivial" else None

    def _draw_blanks(self, samples: int, seed: int, epoch: int) -> Iterator[Tensor]:
        if self.config.erasing:
            uniforms = draw_uniforms(samples, 5, seed, "erasing", epoch)
            yield erasing_boxes(uniforms, self.side, self.side, self.config.erasing).int()
        if self.config.cutout:
            uniforms = draw_uniforms(samples, 2, seed, "cutout", epoch)
            yield cutout_boxes(uniforms, self.side, self.side, self.config.cutout).int()

    def _draw_mixtures(self, steps: int, seed: int, epoch: int) -> tuple[Mixture, ...]:
        mixup, cutmix = self.config.mixup, self.config.cutmix
        return tuple(draw_mixtures(steps, self.side, mixup, cutmix, seed, epoch)) if mixup or cutmix else ()

    def vary(self, images: Tensor, draws: Draws, which: Tensor) -> Tensor:
        """Uint8 images ``(B, C, H, W)``, cropped, mirrored and changed by the policy as drawn for them; those that were
        given may be written to."""
        here = which.to(images.device, non_blocking=True)
        if draws.offsets is not None:
            images = crop_padded(images, draws.offsets[here], self.padding)
        if draws.mirrored is not None:
            images = flip_(images, draws.mirrored[here])
        if draws.policy is not None:
            require_pixels(images, "policy")
            images = apply_policy(images, draws.policy.chosen[which.cpu()], draws.policy.strengths[here])
        return images

    def blank(self, images: Tensor, draws: Draws, which: Tensor) -> Tensor:
        """Normalised images with 0, the mean, in the boxes drawn for them."""
        for boxes in draws.blanked:
            images = blank(images, boxes[which.to(images.device, non_blocking=True)])
        return images

    def mix(self, images: Tensor, labels: Tensor, draws: Draws, step: int) -> tuple[Tensor, Tensor]:
        """Images and targets as step ``step`` of the epoch, from 0, mixes them.

        The targets are class probabilities, smoothed: the loss must not smooth them again. Where nothing is mixed they
        are ``labels``, and smoothing is left to the loss.
        """
        if not draws.mixtures:
            return images, labels
        mixture = draws.mixtures[step]
        return mix_images(images, mixture), mixed_targets(labels, mixture.weight, self.num_classes, self.smoothing)

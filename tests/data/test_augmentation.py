"""What happens to training images, together."""

import pytest
import torch
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.data.augmentation import Augmentation, Draws
from resnetlab.data.config import AugmentConfig
from resnetlab.data.policies import apply_policy
from resnetlab.data.transforms import crop_padded, draw_offsets, flip_
from tests.data.references import photographs

EVERYTHING = AugmentConfig(flip=True, policy="rand", erasing=0.5, cutout=9, mixup=0.2, cutmix=1.0)
N = 60


def noise() -> torch.Tensor:
    return photographs(32).repeat(N // 2, 1, 1, 1)


def test_with_nothing_on_nothing_is_drawn_and_nothing_copied():
    nothing = Augmentation(AugmentConfig(crop_padding=0), side=32, num_classes=3)
    draws = nothing.draw(N, 10, seed=0, epoch=1)
    assert draws == Draws()
    images, labels, which = noise(), torch.zeros(N, dtype=torch.int64), torch.arange(N)
    assert nothing.vary(images, draws, which) is images
    assert nothing.blank(images, draws, which) is images
    mixed, targets = nothing.mix(images, labels, draws, 0)
    assert mixed is images
    assert targets is labels


def test_usual_crop_is_that_of_earlier_versions():
    usual = Augmentation(AugmentConfig(), side=32, num_classes=3)
    draws = usual.draw(N, 1, seed=3, epoch=2)
    which = torch.randperm(N)[:10]
    expected = crop_padded(noise()[which], draw_offsets(N, 4, 3, 2)[which], 4)
    assert torch.equal(usual.vary(noise()[which], draws, which), expected)


@pytest.mark.parametrize(
    ("config", "padding"),
    [
        (AugmentConfig(), 4),
        (AugmentConfig(crop_padding=2), 2),
        (AugmentConfig(random_resized_crop=True), 0),
        (AugmentConfig(random_resized_crop=True, crop_padding=0), 0),
    ],
)
def test_padding_is_an_eighth_of_the_side_unless_given(config, padding):
    augmentation = Augmentation(config, side=32, num_classes=3)
    assert augmentation.padding == padding
    draws = augmentation.draw(N, 1, seed=0, epoch=1)
    assert (draws.offsets is not None) == (padding > 0)
    assert (draws.resized is not None) == config.random_resized_crop


def test_images_are_cropped_then_mirrored_then_changed_by_the_policy():
    augmentation = Augmentation(EVERYTHING, side=32, num_classes=3)
    draws = augmentation.draw(N, 1, seed=0, epoch=1)
    policy = draws.policy
    expected = flip_(crop_padded(noise(), draws.offsets, 4), draws.mirrored)
    expected = apply_policy(expected, policy.chosen, policy.strengths)
    assert torch.equal(augmentation.vary(noise(), draws, torch.arange(N)), expected)
    assert 0.3 < draws.mirrored.float().mean() < 0.7


@pytest.mark.parametrize("policy", ["rand", "trivial"])
def test_what_happens_to_a_sample_does_not_depend_on_its_batch(policy):
    config = AugmentConfig(flip=True, policy=policy, erasing=0.5, cutout=9)
    augmentation = Augmentation(config, side=32, num_classes=3)
    draws = augmentation.draw(N, 1, seed=0, epoch=1)

    def changed(which: torch.Tensor) -> torch.Tensor:
        varied = augmentation.vary(noise()[which], draws, which)
        return augmentation.blank(varied.float() - 100, draws, which)

    whole = changed(torch.arange(N))
    order = torch.randperm(N)
    for sizes in ([N], [1] * N, [7, 20, 33]):
        assert torch.equal(torch.cat([changed(part) for part in order.split(sizes)]), whole[order])
    for seed, epoch in ((0, 2), (1, 1)):
        draws = augmentation.draw(N, 1, seed=seed, epoch=epoch)
        assert not torch.equal(changed(torch.arange(N)), whole)


def test_one_kind_of_draw_does_not_depend_on_the_others():
    alone = Augmentation(AugmentConfig(flip=True, crop_padding=0), side=32, num_classes=3).draw(N, 9, 0, 1)
    among = Augmentation(EVERYTHING, side=32, num_classes=3).draw(N, 9, 0, 1)
    assert torch.equal(alone.mirrored, among.mirrored)


def test_erasing_and_cutout_blank_to_the_mean():
    augmentation = Augmentation(AugmentConfig(cutout=9, erasing=1.0), side=32, num_classes=3)
    draws = augmentation.draw(N, 1, seed=0, epoch=1)
    blanked = augmentation.blank(torch.ones(N, 3, 32, 32), draws, torch.arange(N))
    only_cutout = Augmentation(AugmentConfig(cutout=9), side=32, num_classes=3)
    fewer = only_cutout.blank(torch.ones(N, 3, 32, 32), only_cutout.draw(N, 1, 0, 1), torch.arange(N))
    assert ((blanked == 0) >= (fewer == 0)).all()
    assert (blanked == 0).sum() > (fewer == 0).sum() > 0


def test_mixed_targets_are_smoothed_probabilities_of_the_steps_weight():
    augmentation = Augmentation(EVERYTHING, side=32, num_classes=4, smoothing=0.2)
    draws = augmentation.draw(N, 5, seed=0, epoch=1)
    assert len(draws.mixtures) == 5
    labels = torch.arange(6) % 4
    for step, mixture in enumerate(draws.mixtures):
        mixed, targets = augmentation.mix(noise()[:6].float(), labels, draws, step)
        assert mixed.shape == (6, 3, 32, 32)
        assert_close(targets.sum(1), torch.ones(6))
        assert_close(targets[0], torch.tensor([0.05 + 0.8 * mixture.weight, 0.85 - 0.8 * mixture.weight, 0.05, 0.05]))


def test_draws_move_to_a_device_but_for_what_is_grouped_on_the_cpu():
    config = AugmentConfig(flip=True, policy="rand", erasing=0.5, random_resized_crop=True, mixup=0.2)
    draws = Augmentation(config, side=32, num_classes=3).draw(N, 3, 0, 1)
    moved = draws.to(torch.device("meta"))
    assert moved.resized.uniforms.is_meta
    assert moved.mirrored.is_meta
    assert moved.policy.strengths.is_meta
    assert moved.policy.chosen is draws.policy.chosen
    assert all(boxes.is_meta for boxes in moved.blanked)
    assert moved.mixtures == draws.mixtures
    assert (
        Augmentation(AugmentConfig(), side=32, num_classes=3).draw(N, 3, 0, 1).to(torch.device("meta")).offsets.is_meta
    )
    assert Draws().to(torch.device("meta")) == Draws()


@pytest.mark.parametrize("setting", ["crop_padding", "cutout"])
def test_what_is_larger_than_the_image_is_refused(setting):
    Augmentation(AugmentConfig(**{setting: 32}), side=32, num_classes=3)
    with pytest.raises(ConfigError, match=f"{setting}=33 .* the side of the images, 32"):
        Augmentation(AugmentConfig(**{setting: 33}), side=32, num_classes=3)


@pytest.mark.parametrize(
    "values",
    [
        {"crop_padding": -1},
        {"crop_scale": (0.0, 1.0)},
        {"crop_scale": (0.5, 0.4)},
        {"crop_scale": (0.5, float("nan"))},
        {"random_resized_crop": True, "crop_padding": 4},
        {"policy": "random"},
        {"rand_operations": 0},
        {"rand_magnitude": 31},
        {"erasing": 1.5},
        {"cutout": -1},
        {"mixup": float("inf")},
        {"mixup": float("nan")},
        {"cutmix": -0.1},
    ],
)
def test_settings_that_make_no_augmentation_are_refused(values):
    with pytest.raises(ConfigError):
        AugmentConfig(**values)

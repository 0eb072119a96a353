"""A folder of photographs, cut out of the sample images of scikit-learn and matplotlib, and a net of digits."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_image

from resnetlab.core.errors import ConfigError
from resnetlab.data.config import AugmentConfig, DecodeConfig
from resnetlab.models.weights import inspect_weights
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import fit
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import evaluate_run, run_recipe
from tests.train.runs import StopAfter, same_tensors, tiny_net, without_time

EACH = {"train": 24, "test": 8}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three classes of cuttings, 60 to 160 pixels wide and not square, as JPEG, some of them turned by EXIF."""
    folder = tmp_path_factory.mktemp("photos")
    with get_sample_data("grace_hopper.jpg") as stream:
        portrait = np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB"))
    whole = {"china": load_sample_image("china.jpg"), "flower": load_sample_image("flower.jpg"), "portrait": portrait}
    rng = np.random.default_rng(0)
    for split, number in EACH.items():
        for name, photo in whole.items():
            (folder / split / name).mkdir(parents=True)
            for cutting in range(number):
                height, width = rng.integers(60, 160, 2)
                top, left = (
                    rng.integers(0, side - cut) for side, cut in zip(photo.shape[:2], (height, width), strict=True)
                )
                image = Image.fromarray(photo[top : top + height, left : left + width])
                exif = Image.Exif()
                exif[0x0112] = 1 + 5 * (cutting % 2)  # every other one lies on its side
                if cutting % 2:
                    image = image.transpose(Image.Transpose.ROTATE_90)
                image.save(folder / split / name / f"{cutting}.jpg", quality=92, exif=exif)
    return folder


def test_a_net_trained_on_digits_is_fine_tuned_on_photographs(tmp_path, photos):
    digits = Recipe(model="cifar_resnet8", training=TrainConfig(epochs=1, batch_size=128))
    run_recipe(digits, tmp_path / "digits", page=False)
    tuned = Recipe(
        model="cifar_resnet8",
        weights=str(tmp_path / "digits"),
        data=str(photos),
        decode=DecodeConfig(image_size=32, workers=1),
        training=TrainConfig(
            epochs=20, batch_size=16, lr=0.05, head_lr=0.1, augment=AugmentConfig(crop_padding=0, flip=True)
        ),
    )
    record = run_recipe(tuned, tmp_path / "tuned")
    assert record.data["classes"] == ["china", "flower", "portrait"]
    assert [record.data[name] for name in ("train", "validation", "test")] == [66, 6, 24]
    assert record.data["encoding"] == "jpeg"
    assert record.final.test.error <= 3 / 24
    assert evaluate_run(tmp_path / "tuned") == record.final.test
    (tensors,) = [found.shapes for found in inspect_weights(tmp_path / "tuned" / "last")]
    assert tensors["stem.conv.weight"] == (16, 3, 3, 3)
    assert tensors["head.weight"] == (3, 64)


def test_images_of_every_size_train_at_a_size_that_does_not_fit_in_memory_rules(tmp_path, photos):
    """Above 64 pixels images stay encoded, and are cut out of the whole image as they are asked for."""
    recipe = Recipe(
        model="cifar_resnet8",
        data=str(photos),
        decode=DecodeConfig(image_size=80, workers=2),
        training=TrainConfig(epochs=1, batch_size=16, augment=AugmentConfig(random_resized_crop=True)),
    )
    record = run_recipe(recipe, tmp_path / "run", page=False)
    assert record.data["shape"] == [3, 80, 80]
    alone = Recipe(**{**vars(recipe), "decode": DecodeConfig(image_size=80)})
    assert run_recipe(alone, tmp_path / "alone", page=False).history[0].running_loss == record.history[0].running_loss


THAWED = TrainConfig(epochs=4, batch_size=16, freeze="stages.0", freeze_epochs=2, lr=0.05, save_every=1)


def test_what_is_frozen_at_first_is_trained_later(data):
    """After two epochs the stem is as it was; a run of the same epochs that stays frozen leaves it so."""
    stems = []

    class Watch(NoCallback):
        def on_epoch(self, record, epochs) -> None:
            stems.append(net.stem.conv.weight.detach().clone())

    net = tiny_net()
    before = net.stem.conv.weight.detach().clone()
    statistics = net.stem.norm.running_mean.clone()
    history = fit(net, data, THAWED, seed=0, callback=Watch())
    assert [torch.equal(stem, before) for stem in stems] == [True, True, False, False]
    assert not torch.equal(net.stem.norm.running_mean, statistics)
    frozen = fit(tiny_net(), data, replace(THAWED, freeze_epochs=None), seed=0)
    assert without_time(frozen[:2]) == without_time(history[:2])
    assert without_time(frozen) != without_time(history)


@pytest.mark.parametrize("step", [8, 12, 15])
def test_a_run_cut_off_before_and_behind_the_thaw_resumes_to_equal_bits(data, tmp_path, step):
    whole, resumed = tiny_net(), tiny_net()
    history = fit(whole, data, THAWED, seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, THAWED, seed=0, out=tmp_path, callback=StopAfter(step))
    assert without_time(fit(resumed, data, THAWED, seed=0, out=tmp_path)) == without_time(history)
    assert same_tensors(whole, resumed)


def test_freeze_epochs_without_freeze_are_refused():
    with pytest.raises(ConfigError, match="with freeze"):
        TrainConfig(freeze_epochs=2)

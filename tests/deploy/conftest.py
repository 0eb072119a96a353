"""A run on the digits and one on crops of two photographs, each exported once."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from resnetlab.data.config import DecodeConfig
from resnetlab.deploy.export import ExportConfig, export
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe

SIDE = 112
DIGITS = Recipe(model="cifar_resnet8", training=TrainConfig(epochs=1, batch_size=64))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "digits"
    run_recipe(DIGITS, out, page=False)
    return out


@pytest.fixture(scope="session")
def bundle(digits_run, tmp_path_factory):
    """With the formats of each engine in float32."""
    for extra in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(extra)
    out = tmp_path_factory.mktemp("bundles") / "digits"
    export(digits_run, out, ExportConfig(to=("onnx", "openvino", "pt2", "triton")))
    return out


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Crops of 112 pixels of two photographs, a folder each."""
    place, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        (place / name).mkdir(parents=True)
        for number in range(80):
            top, left = rng.integers(0, photo.shape[0] - SIDE), rng.integers(0, photo.shape[1] - SIDE)
            crop = photo[top : top + SIDE, left : left + SIDE]
            Image.fromarray(crop).save(place / name / f"{number}.png")
    return place


@pytest.fixture(scope="session")
def photos_bundle(photos, tmp_path_factory):
    """Of a net that sees the photographs at 28 pixels; without formats."""
    recipe = Recipe(model="cifar_resnet8", data=f"folder:{photos}", decode=DecodeConfig(image_size=28))
    recipe = replace(recipe, training=TrainConfig(epochs=6, batch_size=16, lr=0.02))
    made = tmp_path_factory.mktemp("photos")
    run_recipe(recipe, made / "run", page=False)
    export(made / "run", made / "bundle")
    return made / "bundle"

"""Runs on the digits, on files of three colours and on crops of two photographs; bundles of the first and the last."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from resnetlab.data.config import DecodeConfig
from resnetlab.data.sources import load_data
from resnetlab.deploy.export import ExportConfig, export
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe
from tests.cli.conftest import run  # noqa: F401  # commands are run here too

SIDE = 112
TRAINING = TrainConfig(epochs=2, batch_size=64, lr=0.1, device="cpu")
DIGITS = Recipe(model="cifar_resnet8", data="digits", training=TRAINING)
COLOURS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """A run on the digits, in which white is 16."""
    out = tmp_path_factory.mktemp("digits") / "run"
    run_recipe(DIGITS, out, page=False)
    return out


@pytest.fixture(scope="session")
def bundle(digits_run, tmp_path_factory) -> Path:
    """With the formats of each engine in float32."""
    for extra in ("onnx", "onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(extra)
    out = tmp_path_factory.mktemp("bundles") / "digits"
    export(digits_run, out, ExportConfig(to=("onnx", "openvino", "pt2", "triton", "web")))
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


def add_colours(folder: Path, names=tuple(COLOURS), count: int = 12, seed: int = 0) -> Path:
    """A folder of images, 20×16 pixels, of each class of colour: PNG, of which every third is a JPEG."""
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = np.clip(rng.normal(COLOURS[name], 40, (16, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02d}.{'png' if number % 3 else 'jpg'}")
    return folder


@pytest.fixture(scope="session")
def colour_run(tmp_path_factory) -> Path:
    """A run on files of three colours, cut to 8×8 pixels; its data lie beside it in ``set``."""
    place = tmp_path_factory.mktemp("colours")
    add_colours(place / "set", count=20)
    recipe = Recipe(
        model="cifar_resnet8",
        data=f"folder:{place / 'set'}",
        decode=DecodeConfig(image_size=8),
        training=TrainConfig(epochs=3, batch_size=12, lr=0.05, device="cpu"),
    )
    run_recipe(recipe, place / "run", page=False)
    return place / "run"


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")

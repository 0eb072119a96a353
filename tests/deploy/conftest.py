from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab.data.config import DecodeConfig
from resnetlab.data.sources import load_data
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe
from tests.cli.conftest import run  # noqa: F401  # commands are run here too

TRAINING = TrainConfig(epochs=2, batch_size=64, lr=0.1, device="cpu")
COLOURS = {"blue": (30, 30, 200), "green": (30, 200, 30), "red": (200, 30, 30)}


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """A run on the digits, in which white is 16."""
    out = tmp_path_factory.mktemp("digits") / "run"
    run_recipe(Recipe(model="cifar_resnet8", data="digits", training=TRAINING), out, page=False)
    return out


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

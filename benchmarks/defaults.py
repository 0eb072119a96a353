"""Whether what ``resnetlab train --data FOLDER`` chooses is right: ``python benchmarks/defaults.py --fashion FOLDER``.

Four sets are made into folders of image files: scikit-learn's digits; 2,000 images of Fashion-MNIST; crops of
photographs that scikit-learn and matplotlib ship, no two of which overlap; and an imbalanced set, digits of 140 down to
7 training images, tested on 30 of each. For each set and seed the defaults are trained,
and what lies around them: a third of the learning rate and three times it, for two models, and another side, with the
same epochs, batches and augmentation. A test error is that of the last epoch.
"""

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import read_json, write_json
from resnetlab.core.randomness import generator
from resnetlab.data.idx import read_idx_folder
from resnetlab.train.defaults import SMALL, choose, look, with_setting
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe

IMAGES, LARGEST, SMALLEST, TESTED = 2000, 140, 7, 30
TILES, TILE = 60, 72
"""Crops of each photograph, half of them to test on, and their side in pixels."""


def save(image: Image.Image, folder: Path, name: str) -> None:
    """A PNG in the folder of its class."""
    folder.mkdir(parents=True, exist_ok=True)
    image.save(folder / f"{name}.png")


def digits(folder: Path, _fashion: Path) -> None:
    """1,797 images of 8×8 pixels, 0 to 16 stretched to 0 to 255."""
    found = load_digits()
    for number, (pixels, label) in enumerate(zip(found.images, found.target, strict=True)):
        save(Image.fromarray((pixels * 255 / 16).astype(np.uint8)), folder / str(label), f"{number:04}")


def fashion(folder: Path, source: Path) -> None:
    """The first images of Fashion-MNIST's training set."""
    split = read_idx_folder(source).train
    for number in range(IMAGES):
        pixels = split.images[number, 0].numpy()
        save(Image.fromarray(pixels), folder / f"class {int(split.labels[number])}", f"{number:04}")


def imbalanced(folder: Path, _fashion: Path) -> None:
    """Digits whose classes fall geometrically in size, and as many test images of each."""
    found = load_digits()
    for label in range(10):
        members = np.flatnonzero(found.target == label)
        count = round(LARGEST * (SMALLEST / LARGEST) ** (label / 9))
        for part, numbers in (("test", members[:TESTED]), ("train", members[TESTED : TESTED + count])):
            for number in numbers:
                pixels = (found.images[number] * 255 / 16).astype(np.uint8)
                save(Image.fromarray(pixels), folder / part / str(label), f"{number:04}")


def photographs() -> dict[str, Image.Image]:
    """Those that scikit-learn and matplotlib ship, by name."""
    china, flower = (Image.fromarray(image) for image in load_sample_images().images)
    hopper = Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
    return {"china": china, "flower": flower, "hopper": hopper}


def crops(folder: Path, _fashion: Path) -> None:
    """Tiles of photographs, which do not overlap; colours permuted and brightness varied, so that they tell little."""
    for name, photo in photographs().items():
        columns = int(np.ceil(np.sqrt(TILES * photo.width / photo.height)))
        rows = -(-TILES // columns)
        photo = photo.resize((columns * TILE, rows * TILE), Image.Resampling.LANCZOS)
        places = generator(0, "crops", name).permutation(rows * columns)[:TILES]
        for number, place in enumerate(places.tolist()):
            row, column = divmod(place, columns)
            draw = generator(0, "crop", name, number)
            box = (column * TILE, row * TILE, (column + 1) * TILE, (row + 1) * TILE)
            pixels = np.asarray(photo.crop(box))[..., draw.permutation(3)] * draw.uniform(0.6, 1.2)
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            # As photographs do, they come in several sizes.
            side = int(draw.integers(66, TILE + 1))
            part = "test" if number % 2 else "train"
            save(image.crop((0, 0, side, TILE)), folder / part / name, f"{number:03}")


SETS = {"digits": digits, "fashion": fashion, "crops": crops, "imbalanced": imbalanced}
SEEDS = (1, 2, 3)
"""The rules were tuned on others: 0 and 10 to 12."""


def grid(recipe: Recipe) -> dict[str, Recipe]:
    """The defaults, and around them: a third of the rate and three times it, for two models; and another side."""
    side = recipe.decode.image_size
    other = "cifar_resnet8" if recipe.model != "cifar_resnet8" else "resnet18"
    found = {"defaults": recipe}
    for model, factor in product((recipe.model, other), (1 / 3, 3.0)):
        training = replace(recipe.training, lr=round(recipe.training.lr * factor, 4))
        found[f"{model}, {side} pixels, lr {training.lr:g}"] = replace(recipe, model=model, training=training)
    another = round(side * (1.5 if side <= SMALL else 0.75))
    found[f"{recipe.model}, {another} pixels, lr {recipe.training.lr:g}"] = with_setting(
        recipe, "decode.image_size", another
    )
    return found


def train(recipe: Recipe, folder: Path) -> dict[str, object]:
    """Train the recipe; its error on test after the last epoch, None where it diverged."""
    record = run_recipe(recipe, folder, page=False)
    final = record.final
    return {
        "error": None if final is None else final.reported.error,
        "n": 0 if final is None else final.reported.n,
        "seconds": record.seconds,
    }


def rows_of(name: str, seed: int, folder: Path, work: Path) -> None:
    """Train what is missing of a set and a seed, a file of the work folder for each run."""
    start = Recipe(data=str(folder), seed=seed, split_seed=seed)
    recipe, lines = choose(look(start, ()), start, ("data", "seed", "split_seed"))
    for setting, tried in grid(recipe).items():
        path = work / "rows" / name / str(seed) / f"{setting}.json"
        if not path.is_file():
            with TemporaryDirectory() as scratch:
                found = train(tried, Path(scratch) / "run")
            row = {"set": name, "seed": seed, "setting": setting, "epochs": tried.training.epochs, **found}
            write_json(path, row | ({"chosen": lines} if setting == "defaults" else {}))


def main() -> None:
    """Several processes may share one ``--work``, each with a set or a seed of its own; the last one writes the
    record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, required=True, help="folder of the files of Fashion-MNIST")
    parser.add_argument("--work", type=Path, default=Path("runs/defaults"), help="where sets and runs are kept")
    parser.add_argument("--sets", nargs="*", choices=tuple(SETS), default=tuple(SETS))
    parser.add_argument("--seeds", nargs="*", type=int, default=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in given.sets:
        folder = given.work / "sets" / name
        if not folder.is_dir():
            SETS[name](folder, given.fashion)
        for seed in given.seeds:
            rows_of(name, seed, folder, given.work)
    rows = [read_json(path) for path in sorted((given.work / "rows").rglob("*.json"))]
    write_json(given.out, {"environment": describe_environment("cpu", given.threads), "rows": rows})


if __name__ == "__main__":
    main()

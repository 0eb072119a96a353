"""What is chosen for images in files: by facts alone, one setting at a time, and never what was given."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from resnetlab.core.errors import DataError
from resnetlab.models.init import build
from resnetlab.train import defaults
from resnetlab.train.config import TrainConfig
from resnetlab.train.defaults import RULES, Facts, Weights, choose, choose_evaluation, find_weights, hint, look, suits
from resnetlab.train.recipe import Recipe, fitted_config, recipe_command
from resnetlab.train.run import run_recipe
from tests.conftest import ROOT, make_data

PHOTOS = Facts(images=400, side=480, grey=False, device="cpu")
TINY = Facts(images=1600, side=28, grey=True, device="cpu")
TUNED = replace(PHOTOS, weights=Weights(name="resnet18.tv_in1k", model="resnet18", side=None))


def chosen(facts: Facts, recipe: Recipe | None = None, given=()) -> Recipe:
    return choose(facts, recipe or Recipe(), given)[0]


def test_photographs_and_small_images_get_what_suits_them():
    photos, tiny = chosen(PHOTOS), chosen(TINY)
    assert (photos.model, photos.decode.image_size, photos.validation) == ("resnet18", 96, False)
    assert (photos.training.batch_size, photos.training.epochs) == (16, 30)
    assert photos.training.augment.flip
    assert (photos.training.augment.random_resized_crop, photos.training.augment.crop_scale) == (True, (0.35, 1.0))
    assert (tiny.model, tiny.decode.image_size, tiny.validation) == ("cifar_resnet20", 28, True)
    assert (tiny.training.batch_size, tiny.training.lr, tiny.training.epochs) == (32, 0.1, 12)
    assert (tiny.training.augment.flip, tiny.training.augment.random_resized_crop) == (False, False)
    few = chosen(replace(PHOTOS, images=299))
    assert (few.model, few.training.batch_size, few.training.lr) == ("cifar_resnet8", 16, 0.02)
    assert chosen(replace(TUNED, images=299)).model == "resnet18"
    assert chosen(replace(PHOTOS, device="cuda")).decode.image_size == 224
    assert chosen(replace(TINY, images=60_000)).training.batch_size == 64
    assert chosen(replace(TINY, images=60_000, device="cuda")).training.batch_size == 256


def test_every_rule_decides_somewhere_and_says_why():
    recipes = (Recipe(), Recipe(training=TrainConfig(optimizer="adamw", lr=0.1)), Recipe(model="resnet18"))
    cached = replace(TUNED, weights=replace(TUNED.weights, cached=True, side=64))
    said = set()
    for facts in (PHOTOS, TINY, TUNED, cached, replace(PHOTOS, device="cuda"), replace(PHOTOS, images=299)):
        for recipe in recipes:
            for line in choose(facts, recipe, ("model",) if recipe.model == "resnet18" else ())[1]:
                said |= {rule for rule in RULES if rule.when in line or rule.says in line}
    assert said == set(RULES)


def test_what_is_given_stays_and_the_rest_follows_it():
    given = Recipe(model="resnet34", training=TrainConfig(batch_size=64, lr=0.3, epochs=3))
    names = {"model", "batch_size", "lr", "epochs"}
    found, lines = choose(PHOTOS, given, names)
    assert (found.model, found.training.batch_size, found.training.lr, found.training.epochs) == (
        "resnet34",
        64,
        0.3,
        3,
    )
    assert not any(line.startswith(("model", "batch", "lr", "epochs")) for line in lines)
    # The rate follows the batch, and the stem the size of the images.
    assert chosen(PHOTOS, given, names - {"lr"}).training.lr == 0.08
    assert chosen(TINY, given, names).options == {"stem": "cifar"}
    assert chosen(TINY, given, names | {"stem"}).options == {}
    assert chosen(TINY, given, ()).options == {}
    cropped = chosen(PHOTOS, given, {"crop_padding"}).training.augment
    assert (cropped.random_resized_crop, cropped.crop_scale) == (False, (0.08, 1.0))
    assert chosen(PHOTOS, given, {"early_stop"}).validation
    assert chosen(replace(PHOTOS, own_validation=True)).validation
    for optimizer, rate in {"adamw": 0.001, "signsgd": 0.001, "lars": 0.2, "normalised_sgd": 0.05}.items():
        assert chosen(PHOTOS, replace(given, training=TrainConfig(optimizer=optimizer))).training.lr == rate


def test_weights_are_frozen_first_and_then_all_is_trained_with_a_faster_head():
    found = chosen(TUNED)
    training = found.training
    assert (found.model, training.freeze, training.freeze_epochs) == ("resnet18", "stages.3", 6)
    assert training.head_lr == pytest.approx(10 * training.lr)
    assert found.weights is None  # --weights said which
    assert chosen(TUNED, given={"freeze"}).training.freeze_epochs is None
    assert chosen(TUNED, given={"freeze_epochs"}).training.freeze is None
    assert chosen(replace(TUNED, weights=replace(TUNED.weights, cached=True))).weights == "resnet18.tv_in1k"
    assert chosen(replace(TUNED, weights=replace(TUNED.weights, side=64))).decode.image_size == 64
    assert hint(TUNED) == hint(TINY) == []
    assert "--weights resnet18.tv_in1k" in hint(PHOTOS)[0]


@pytest.mark.parametrize("model", ["resnet50", "vgg11", "mlp_resnet8", "cifar_preact_resnet20", "resnet18d"])
@pytest.mark.parametrize("facts", [PHOTOS, TINY], ids=["photos", "tiny"])
def test_whatever_network_is_given_can_be_built(facts, model):
    recipe = chosen(facts, Recipe(model=model), {"model"})
    assert recipe.model == model
    build(fitted_config(recipe, make_data(side=32)), seed=0, device="meta")


def save(folder, count, size, grey=False, **kwargs):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 255, (*size, 1 if grey else 3), dtype=np.uint8)
            Image.fromarray(pixels.repeat(3 if grey else 1, axis=2)).save(folder / name / f"{number}.jpg", **kwargs)


def test_a_folder_is_looked_at_without_what_cannot_be_read(tmp_path):
    save(tmp_path / "set", 10, (40, 90))
    (tmp_path / "set" / "a" / "3.jpg").write_bytes(b"no image")
    facts = look(Recipe(data=str(tmp_path / "set")), ())
    assert facts == Facts(images=16, side=40, grey=False, device=facts.device)
    save(tmp_path / "grey", 5, (80, 80), grey=True, quality=40)
    assert look(Recipe(data=f"folder:{tmp_path / 'grey'}"), ()).grey
    assert look(Recipe(data=f"{tmp_path / 'grey'}", decode=replace(Recipe().decode, image_size=20)), ()).side == 20
    save(tmp_path / "split" / "train", 4, (10, 10))
    save(tmp_path / "split" / "val", 2, (10, 10))
    facts = look(Recipe(data=str(tmp_path / "split")), ())
    assert (facts.images, facts.own_validation) == (8, True)
    for path in (tmp_path / "set").rglob("*.jpg"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of 16 images"):
        look(Recipe(data=str(tmp_path / "set")), ())


def test_only_images_in_files_are_chosen_for():
    assert [suits(source) for source in ("digits", "idx:x", "npz:x", "cifar10:x")] == [False] * 4
    assert [suits(source) for source in ("photos", "folder:x", "parquet:x", "hub:a/b", "digits/")] == [True] * 5


def test_weights_at_hand_are_those_of_a_run_or_of_the_cache_and_nothing_is_fetched(tmp_path, monkeypatch):
    run_recipe(Recipe(model="cifar_resnet8", training=TrainConfig(epochs=1, max_steps=1)), tmp_path / "run", page=False)
    recipe = Recipe(weights=str(tmp_path / "run"))
    assert find_weights(recipe, ("weights",), 200) == Weights(name=recipe.weights, model="cifar_resnet8", side=None)
    assert find_weights(Recipe(weights="resnet34.tv_in1k"), ("weights",), 200).model == "resnet34"
    asked = []
    monkeypatch.setattr(
        "resnetlab.models.pretrained.is_cached", lambda tag: asked.append(tag) or tag.startswith("resnet50")
    )
    assert find_weights(Recipe(), (), 200) == Weights(
        name="resnet50.tv2_in1k", model="resnet50", side=None, cached=True
    )
    assert asked == list(defaults.AT_HAND[:2])
    assert find_weights(Recipe(model="resnet34"), ("model",), 200) is None
    assert find_weights(Recipe(), (), 64) is None
    assert find_weights(Recipe(), ("weights",), 200) is None


def test_cache_without_a_copy_has_none(tmp_path, monkeypatch):
    from resnetlab.models.pretrained import is_cached

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert not is_cached("resnet18.tv_in1k")
    found = tmp_path / "models--timm--resnet18.tv_in1k" / "snapshots" / "590dfdd48494d2316a8385e1ca7fbec3b9359b35"
    found.mkdir(parents=True)
    (found / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("resnetlab.models.pretrained._load_hub", lambda: Cache(tmp_path))
    assert is_cached("resnet18.tv_in1k")
    assert not is_cached("resnet50.tv_in1k")


class Cache:
    """huggingface_hub with its cache elsewhere."""

    def __init__(self, folder):
        self.folder = folder

    def try_to_load_from_cache(self, repository, file, revision):
        from huggingface_hub import try_to_load_from_cache

        return try_to_load_from_cache(repository, file, cache_dir=self.folder, revision=revision)


def test_large_sets_of_arrays_evaluate_their_training_images_at_the_end(monkeypatch):
    recipe = Recipe(data="cifar10:x")
    found, lines = choose_evaluation(recipe, ())
    assert found == replace(recipe, training=replace(recipe.training, evaluate_train="end"))
    assert lines == ["evaluate train end (50,000 training images in arrays, more than 20,000)"]
    assert choose_evaluation(recipe, {"evaluate_train"}) == (recipe, [])
    assert choose_evaluation(Recipe(), ()) == (Recipe(), [])
    monkeypatch.setattr(defaults, "count_images", lambda _: defaults.LARGE)
    assert choose_evaluation(recipe, ()) == (recipe, [])


def test_command_of_a_run_chooses_nothing_besides():
    end = {"training": {"evaluate_train": "end"}}
    for data in ("photos", "cifar10:x", "idx:x"):
        assert "--no-choose" in recipe_command({"data": data, "model": "resnet18"})
    for plain in ({"data": "digits"}, {"data": "cifar10:x"} | end):
        assert "--no-choose" not in recipe_command(plain | {"model": "resnet18"})
    assert "--no-choose" in recipe_command({"data": "photos"} | end)


def test_table_of_the_document_is_drawn_from_the_rules():
    text = (ROOT / "docs" / "photos.md").read_text()
    names = [rule.setting.rpartition(".")[2].replace("_", "-") for rule in RULES]
    for name, rule in zip(names, RULES, strict=True):
        assert f"| `{name}` | {rule.says} | {rule.when} |" in text

"""``resnetlab train --data FOLDER`` alone: what is chosen is said, saved and resumed; ``--time`` and ``--lr auto``."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from resnetlab.cli.recipe_args import given_settings
from resnetlab.cli.train import seconds_of
from resnetlab.core.errors import ConfigError
from resnetlab.train.recipe import Recipe, load_recipe, read_recipe


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of 20 images of 12 pixels, bright on the left or on the right."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for label, name in enumerate(("left", "right")):
        (folder / name).mkdir()
        for number in range(20):
            pixels = rng.integers(0, 90, (12, 12, 3))
            pixels[:, 6 * label : 6 * label + 6] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


def printed(run, *words):
    code, out, _ = run("train", *words, "--print-config")
    assert code == 0
    return yaml.safe_load(out)


def test_what_no_flag_says_is_chosen_and_flags_win(run, photos):
    found = printed(run, "--data", photos, "--lr", "0.3", "--model=cifar_resnet8", "--no-flip")
    assert (found["model"], found["decode"]["image_size"], found["validation"]) == ("cifar_resnet8", 12, False)
    training = found["training"]
    assert (training["lr"], training["batch_size"], training["epochs"]) == (0.3, 16, 30)
    assert training["augment"]["flip"] is False
    fixed = printed(run, "--data", photos, "--no-choose")
    assert fixed == printed(run, "--data", "digits") | {"data": str(photos)}


def test_of_large_arrays_the_evaluation_alone_is_chosen(run, tmp_path):
    chosen = printed(run, "--data", "cifar10:x")
    assert chosen["training"].pop("evaluate_train") == "end"
    fixed = printed(run, "--data", "cifar10:x", "--no-choose")
    assert fixed == printed(run, "--data", "cifar10:x", "--evaluate-train", "epoch")
    assert fixed["training"].pop("evaluate_train") == "epoch"
    assert chosen == fixed
    (tmp_path / "r.yaml").write_text("data: cifar10:x")
    assert printed(run, tmp_path / "r.yaml")["training"]["evaluate_train"] == "epoch"


def test_a_recipe_is_complete_and_digits_are_as_ever(run, photos, tmp_path):
    (tmp_path / "r.yaml").write_text(f"data: {photos}")
    assert printed(run, tmp_path / "r.yaml") == printed(run, "--data", photos, "--no-choose")
    (tmp_path / "defaults.yaml").write_text(yaml.safe_dump(printed(run)))
    assert load_recipe(tmp_path / "defaults.yaml") == Recipe()


def test_choices_are_said_saved_and_not_made_again(run, photos, tmp_path):
    out = tmp_path / "run"
    words = ("train", "--data", photos, "--model", "cifar_resnet8", "--epochs", "2", "--out", out)
    code, _, errors = run(*words)
    assert code == 0
    assert "chosen: lr 0.05 (0.2 × batch size / 64;" in errors
    recipe = read_recipe(out / "recipe.yaml")
    assert (recipe.training.lr, recipe.training.augment.flip) == (0.05, True)
    record = json.loads((out / "record.json").read_text())
    assert record["format"] == 4
    assert any(line.startswith("lr 0.05 ") for line in record["chosen"])
    assert not any(line.startswith(("model", "epochs")) for line in record["chosen"])
    page = (out / "report.html").read_text()
    assert "Chosen to suit the data" in page
    assert "<li>lr 0.05 (0.2 × batch size / 64;" in page
    # What is resumed keeps its recipe and its reasons, though more images would be chosen for otherwise.
    (out / "record.json").unlink()
    for resume in (("--resume", out), ("--data", photos, "--out", out, "--resume", "auto")):
        code, _, errors = run("train", *resume)
        assert (code, "chosen:" in errors) == (0, False)
        again = json.loads((out / "record.json").read_text())
        assert (again["chosen"], again["history"]) == (record["chosen"], record["history"])
        (out / "record.json").unlink()
    # The command on the page gives the same recipe.
    card = (out / "README.md").read_text()
    (line,) = (line for line in card.splitlines() if line.strip().startswith("resnetlab train"))
    assert printed(run, *line.split()[2:]) == yaml.safe_load((out / "recipe.yaml").read_text())


def test_learning_rate_is_found_first_and_saved_as_a_number(run, photos, tmp_path):
    words = ("--data", photos, "--model", "cifar_resnet8", "--epochs", "1", "--out", tmp_path)
    code, _, errors = run("train", *words, "--lr", "auto")
    assert code == 0
    rate = read_recipe(tmp_path / "recipe.yaml").training.lr
    assert f"chosen: lr {rate:g}, by a range test of" in errors
    assert errors.count("chosen: lr ") == 1
    assert 1e-6 < rate < 1
    assert run("find-lr", *words[:4], "--steps", "10", "--lr=auto", "--out", tmp_path / "lr")[0] == 0


def test_time_decides_the_epochs_and_takes_smaller_images_where_they_would_be_few(run, photos, tmp_path, monkeypatch):
    from resnetlab.train import trials

    monkeypatch.setattr(trials, "step_seconds", lambda _recipe, data: 1.0 if data.image_size > 40 else 0.5)
    monkeypatch.setattr(trials, "perf_counter", lambda: 0.0)
    # 32 training images in 2 steps of 16; the 32 and 8 that are evaluated at the end take a third of a step's share.
    words = ("--data", photos, "--model", "cifar_resnet8")
    fits = printed(run, *words, "--image-size", "48", "--time", "1m")
    assert fits["training"]["epochs"] == int((0.8 * 60 - 40 / 16 / 3) / 2)
    few = printed(run, *words, "--image-size", "48", "--time", "15s")
    assert (few["training"]["epochs"], few["decode"]["image_size"]) == (5, 48)
    none = printed(run, *words, "--image-size", "48", "--time", "1s")
    assert none["training"]["epochs"] == 1
    for name in ("left", "right"):
        for path in (photos / name).iterdir():
            big = tmp_path / "big" / name / path.name
            big.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((48, 48)).save(big)
    smaller = printed(run, "--data", tmp_path / "big", "--time", "15s")
    assert (smaller["training"]["epochs"], smaller["decode"]["image_size"]) == (11, 36)


@pytest.mark.parametrize("words", [("--epochs", "3"), ("digits/quick",)])
def test_time_beside_epochs_is_refused(run, words):
    code, _, errors = run("train", *words, "--time", "1m")
    assert (code, "--time chooses the epochs" in errors) == (2, True)


def test_a_time_is_read_and_a_slip_refused():
    assert [seconds_of(text) for text in ("90", "90s", "1.5m", "2h")] == [90, 90, 90, 7200]
    for text in ("", "0", "ten", "10 min", "-3s"):
        with pytest.raises(ConfigError, match="such as 90s, 10m or 2h"):
            seconds_of(text)


def test_trials_are_refused_under_torchrun(run, photos, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for words in (("--time", "1m"), ("--lr", "auto")):
        code, _, errors = run("train", "--data", photos, *words, "--print-config")
        assert (code, "without torchrun" in errors) == (2, True)


def test_names_that_words_give():
    words = ["--data", "x", "--no-flip", "--image-size=8", "--options", "stem", "cifar", "norm", "group", "--lr", "1"]
    assert {"data", "flip", "image_size", "stem", "norm", "lr"} <= given_settings(words)
    assert "cifar" not in given_settings(words)

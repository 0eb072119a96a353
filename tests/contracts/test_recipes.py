"""Every file in recipes/: it parses, says what it is, and its network learns from images of its size."""

import re
import shlex
from dataclasses import replace
from itertools import product
from math import isfinite

import pytest

from resnetlab.cli.commands import read_command
from resnetlab.models.init import build
from resnetlab.study import Study, plan_runs
from resnetlab.study.config import load_study
from resnetlab.study.plan import plan_tuning
from resnetlab.train.loop import fit
from resnetlab.train.optim import learning_rate
from resnetlab.train.recipe import Recipe, fitted_config, recipe_data, recipe_header
from tests.conftest import ROOT, make_data

FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
STUDIES = [path for path in FILES if (ROOT / "recipes" / "study") in path.parents]
FIELDS = ("command", "source", "cost", "expected")
SMALL = 5_000_000
PASS = {"digits": (1437, 8), "idx": (60_000, 28), "parquet": (50_000, 32), "data/imagenet": (1_281_167, 224)}


def recipe_of(path) -> Recipe:
    return load_study(path).recipe


def command_of(text: str):
    words = shlex.split(text)
    words = words[words.index("resnetlab") + 1 :]
    return words, read_command(words)


def test_there_is_a_recipe_for_every_kind_of_data():
    assert {path.parent.name for path in FILES} == {
        "digits",
        "fashion-mnist",
        "cifar10",
        "imagenet",
        "finetune",
        "study",
        "why",
    }


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_header_says_command_source_cost_and_what_to_expect(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = recipe_header(path)
    assert len(found["what"]) > 20
    assert all(len(found[field]) > 10 for field in FIELDS)
    assert "not measured here" in found["expected"] or re.search(r"[\d.]+ %.*n = \d", found["expected"])
    words, command = command_of(found["command"])
    assert words[:2] == ["study" if path in STUDIES else "train", str(path.relative_to(ROOT))]
    assert command.recipe.training.epochs == recipe_of(path).training.epochs
    assert max(map(len, path.read_text().splitlines())) <= 120


def test_a_header_without_a_source_is_seen(tmp_path):
    (tmp_path / "a.yaml").write_text("# A net.\n# command:  resnetlab train a.yaml\n# cost:     1 s\nmodel: x\n")
    assert set(recipe_header(tmp_path / "a.yaml")) == {"what", "command", "cost"}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_network_of_a_recipe_can_be_built_and_a_small_one_takes_two_steps(path):
    recipe = recipe_of(path)
    side = next((side for start, (_, side) in PASS.items() if recipe.data.startswith(start)), 224)
    data = make_data(train=12, test=6, side=side)
    net = build(fitted_config(recipe, data), seed=0, device="meta")
    if sum(parameter.numel() for parameter in net.parameters()) > SMALL:
        return
    short = replace(recipe.training, max_steps=2, device="cpu")
    net = build(fitted_config(recipe, data), seed=0)
    history = fit(net, data, short, seed=0)
    assert len(history) == 2
    assert all(isfinite(record.running_loss) for record in history)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_schedule_of_a_recipe_ends_low_and_reaches_its_highest_rate(path):
    """What a wrong number of steps or epochs would miss: the last milestone, or the end of the cosine."""
    recipe = recipe_of(path)
    config = recipe.training
    images = next((n for start, (n, _) in PASS.items() if recipe.data.startswith(start)), 1000)
    steps = images // config.batch_size
    total = min(config.epochs * steps, config.max_steps or config.epochs * steps)
    rates = [learning_rate(config, step, steps) for step in range(0, total, max(1, total // 500))]
    last = learning_rate(config, total - 1, steps)
    assert max(rates) == pytest.approx(config.lr, rel=0.02)
    assert last <= config.lr * config.gamma ** max(1, len(config.milestones) + len(config.milestone_steps)) * 1.01
    if config.max_steps is not None:
        assert config.epochs * steps >= config.max_steps


def test_recipe_of_the_digits_says_what_the_defaults_are():
    # Its expected figure is that of a net which was trained on all training images.
    assert recipe_of(ROOT / "recipes" / "digits" / "resnet20.yaml") == Recipe(validation=False)
    assert recipe_data(Recipe()).source == "digits"


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_study_asks_one_question_and_each_of_its_networks_can_be_built(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = load_study(path)
    study = Study(recipe=file.recipe, axes=file.axes, seeds=file.seeds, tune=file.tune, tune_seeds=file.tune_seeds or 2)
    lowest = {name: values[0] for name, values in study.tune.items()}
    planned, tuning = plan_runs(study, dict.fromkeys(product(*study.axes.values()), lowest)), plan_tuning(study)
    seeds = study.seeds
    assert seeds >= 3
    assert f"{len(tuning) + len(planned)} runs" in recipe_header(path)["cost"]
    assert recipe_header(path)["what"].count("?") == 1
    for run in planned[: len(planned) // seeds]:
        build(fitted_config(run.recipe, make_data(train=12, test=6)), seed=0, device="meta")
    # What the hypotheses expect is written down before a study of docs/why.md is run.
    assert ("predicts" in recipe_header(path)) == (path.parent.name == "why")
    if "paper" in recipe_header(path):
        # The experiment at its own size is a recipe of its own with axes on the command line.
        for run in plan_runs(command_of(recipe_header(path)["paper"])[1].config):
            data = make_data(train=12, test=6, side=224 if run.recipe.data == "data/imagenet" else 32)
            build(fitted_config(run.recipe, data), seed=0, device="meta")

"""What trials say: a step is timed and nothing else changes, and a rate is found or left as it is."""

from dataclasses import replace

import pytest
import torch

from resnetlab.records.lr_curve import LrCurve
from resnetlab.train import trials
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from resnetlab.train.trials import find_rate, fit_into, step_seconds
from tests.conftest import make_data

RECIPE = Recipe(
    model="cifar_resnet8",
    training=TrainConfig(batch_size=16, lr=0.1, head_lr=1.0, freeze="stages.2", freeze_epochs=3, epochs=12),
)


@pytest.fixture(autouse=True)
def _data(monkeypatch):
    monkeypatch.setattr(trials, "recipe_data", lambda _recipe, _progress: make_data(train=32, validation=8))


def test_a_step_is_timed_with_all_layers_training_and_the_global_draws_as_they_were():
    before = torch.random.get_rng_state()
    assert 0 < step_seconds(RECIPE, make_data(train=32)) < 60
    assert torch.equal(torch.random.get_rng_state(), before)


def test_epochs_fill_the_time_and_thaw_in_their_first_fifth(monkeypatch):
    monkeypatch.setattr(trials, "step_seconds", lambda _recipe, _data: 0.3)
    monkeypatch.setattr(trials, "perf_counter", lambda: 0.0)
    # An epoch is two steps of 16 images, and validation of 8; at the end 32 + 8 + 32 are evaluated, each for a third of
    # what an image of a step takes.
    image = 0.3 / 16 / 3
    expected = int((0.8 * 5 - 72 * image) / (0.6 + 8 * image))
    found, line = fit_into(RECIPE, 5, smaller=False)
    assert (found.training.epochs, found.training.freeze_epochs) == (expected, 1)
    assert line == f"epochs {expected} at 8 pixels, for 5 s: a step takes 0.300 s here"
    most = fit_into(RECIPE, 10_000, smaller=False)[0].training
    assert (most.epochs, most.freeze_epochs) == (100, 3)
    assert fit_into(RECIPE, 0.1, smaller=False)[1].endswith("so that even one epoch takes longer")


@pytest.mark.parametrize(("steepest", "minimum", "rate"), [(0.02, 0.5, 0.02), (0.2, 0.5, 0.05), (None, None, 0.1)])
def test_the_lower_suggestion_is_taken_and_the_head_keeps_its_ratio(monkeypatch, steepest, minimum, rate):
    curve = LrCurve(
        rates=[0.1], losses=[1.0], smoothed=[1.0], steepest=steepest, minimum=minimum, ended="the loss exploded"
    )
    monkeypatch.setattr(trials, "find_lr", lambda *_, **__: curve)
    found, line = find_rate(RECIPE)
    assert (found.training.lr, found.training.head_lr) == (rate, pytest.approx(10 * rate))
    assert line.startswith(f"lr {rate:g}")
    assert replace(found, training=RECIPE.training) == RECIPE

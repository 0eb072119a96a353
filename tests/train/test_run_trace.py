"""The gradients of a run over its steps: in its record, after an interruption too."""

from dataclasses import replace

import pytest
import torch

from resnetlab.core.errors import StoppedError
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.data.dataset import Split
from resnetlab.records.gradients import GradientMoment, moment
from resnetlab.records.run import RunRecord
from resnetlab.train.config import TrainConfig
from resnetlab.train.distributed import World
from resnetlab.train.prepare import make_loader
from resnetlab.train.recipe import Recipe
from resnetlab.train.run import run_recipe, traced_images
from resnetlab.train.signals import StopRequest
from tests.conftest import make_data
from tests.faults.runs import StopAt

SMALL = Recipe(
    model="cifar_plain20",
    options={"widths": "[4,8,16]", "stem_width": "4"},
    training=TrainConfig(epochs=2, batch_size=256, save_every=2),
)
"""Ten steps."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunRecord:
    return run_recipe(SMALL, tmp_path_factory.mktemp("whole") / "run", page=False)


@pytest.mark.parametrize(
    ("batch", "parts", "ranks", "precision", "traced"),
    [
        (32, 1, 1, "fp32", 32),
        (256, 1, 1, "fp32", 64),
        (256, 16, 1, "fp32", 16),
        (256, 2, 4, "fp32", 32),
        (32, 1, 1, "bf16", 16),
    ],
)
def test_trace_takes_a_micro_batch_of_the_leading_rank_and_64_images_at_most(
    monkeypatch, batch, parts, ranks, precision, traced
):
    data = make_data()
    recipe = replace(SMALL, training=TrainConfig(batch_size=batch, accumulate=parts, precision=precision))
    data = replace(data, train=Split(images=data.train.images.repeat(4, 1, 1, 1), labels=data.train.labels.repeat(4)))
    monkeypatch.setattr("resnetlab.train.distributed.world", lambda: World(ranks - 1, ranks))
    images, labels = traced_images(recipe, data, torch.device("cpu"))
    assert (len(images), len(labels)) == (traced, traced)
    whole = make_loader(data, TrainConfig(batch_size=batch), torch.device("cpu"), recipe.seed, alone=True)
    first, _ = next(whole.shuffled(recipe.seed, 1))
    assert torch.equal(images, first[:traced])
    assert images.untyped_storage().nbytes() == images.nbytes


def test_trace_goes_from_the_first_step_to_the_last(whole):
    trace = whole.gradient_trace
    assert [one.step for one in trace] == [0, 1, 2, 4, 8, 10]
    assert trace[0] == moment(0, whole.gradients_start)
    assert trace[-1] == moment(10, whole.gradients_end)
    assert len({one.first for one in trace}) == 6


def test_run_that_traces_all_has_the_bits_of_one_that_does_not_and_every_figure(tmp_path):
    recipe = replace(SMALL, trace="all", training=replace(SMALL.training, max_steps=8))
    traced = run_recipe(recipe, tmp_path / "all", page=False)
    plain = run_recipe(replace(recipe, trace="gradients"), tmp_path / "not", page=False)
    assert [epoch.train for epoch in traced.history] == [epoch.train for epoch in plain.history]
    rest = {"correlation": None, "agreement": None, "change": None, "largest_change": None, "rank": None}
    assert [replace(one, **rest) for one in traced.gradient_trace] == plain.gradient_trace
    names = ("correlation", "agreement", "rank")
    assert all(isinstance(getattr(one, name), float) for one in traced.gradient_trace for name in names)
    # Before the first step nothing has changed yet; the last step of all is a power of two.
    assert [one.change is not None for one in traced.gradient_trace] == [False, True, True, True, True]
    assert all(one.largest_change >= one.change for one in traced.gradient_trace[1:])


def test_moment_from_before_there_were_other_figures_reads():
    old = {"step": 1, "first": 1.0, "last": 2.0, "growth": None}
    found = from_plain(GradientMoment, old, "old.json")
    assert found == GradientMoment(step=1, first=1.0, last=2.0, growth=None)
    assert (found.correlation, found.rank) == (None, None)


def test_last_step_that_is_a_power_of_two_stands_once(tmp_path):
    record = run_recipe(replace(SMALL, training=replace(SMALL.training, max_steps=4)), tmp_path / "run", page=False)
    assert [one.step for one in record.gradient_trace] == [0, 1, 2, 4]
    assert record.gradient_trace[-1] == moment(4, record.gradients_end)


@pytest.mark.parametrize("cut", [3, 9])
def test_interrupted_run_has_the_trace_of_a_whole_one_to_the_bit(tmp_path, whole, cut):
    stop = StopRequest()
    with pytest.raises(StoppedError):
        run_recipe(SMALL, tmp_path / "run", callback=StopAt(stop, cut), stop=stop, page=False)
    record = run_recipe(SMALL, tmp_path / "run", resume=True, page=False)
    assert record.gradient_trace == whole.gradient_trace


def test_run_killed_before_its_record_was_written_has_the_whole_trace(tmp_path, whole):
    run_recipe(SMALL, tmp_path / "run", page=False)
    (tmp_path / "run" / "record.json").unlink()
    assert run_recipe(SMALL, tmp_path / "run", resume=True, page=False).gradient_trace == whole.gradient_trace


def test_diverged_run_is_traced_as_far_as_it_came(tmp_path):
    wild = replace(SMALL, training=replace(SMALL.training, lr=1e30, schedule="constant", weight_decay=0.0))
    record = run_recipe(wild, tmp_path / "run", page=False)
    assert record.status == "diverged"
    assert [one.step for one in record.gradient_trace] == [0, 1]
    assert (record.gradient_trace[0].growth is None, record.gradient_trace[1].growth) == (False, None)


def test_record_from_before_there_was_a_trace_still_reads(whole):
    old = as_plain(whole)
    assert from_plain(RunRecord, old, "new.json") == whole
    del old["gradient_trace"]
    assert from_plain(RunRecord, old, "old.json") == replace(whole, gradient_trace=[])

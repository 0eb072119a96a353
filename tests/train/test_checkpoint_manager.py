"""When a run ends, what it measures, and which epochs it keeps."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnetlab.data.config import AugmentConfig
from resnetlab.records.run import EpochRecord, Metrics, rank_epochs
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer, fit
from resnetlab.train.prepare import make_loader
from tests.conftest import make_data
from tests.train.runs import StopAfter, tiny_net

BASE = TrainConfig(epochs=8, batch_size=16, augment=AugmentConfig(crop_padding=0))
# (validation error, validation loss) of eight epochs: 5 and 6 tie in both, 2 ties with them in the error alone.
SCRIPT = [(0.5, 3.0), (0.2, 0.9), (0.4, 0.1), (0.6, 2.0), (0.2, 0.5), (0.2, 0.5), (0.7, 1.0), (0.3, 0.6)]


@pytest.fixture(scope="module")
def data():
    """40 images for validation, whose figures ``scripted`` gives, and others for test."""
    return make_data(validation=40, test=12)


@pytest.fixture
def scripted(monkeypatch):
    """Epochs that turn out on validation as ``SCRIPT`` says."""
    evaluate = Trainer.evaluate

    def evaluated(trainer, batches):
        if len(batches) != 40:
            return evaluate(trainer, batches)
        error, loss = SCRIPT[len(trainer.state.history)]
        return Metrics(loss=loss, error=error, n=40)

    monkeypatch.setattr(Trainer, "evaluate", evaluated)


def kept(out: Path) -> list[int]:
    folders = sorted(path.name for path in (out / "top").iterdir())
    epochs = [read_checkpoint(out / "top" / name).history[-1].epoch for name in folders]
    assert folders == [f"epoch-{epoch:04}" for epoch in epochs]
    return epochs


@pytest.mark.parametrize("by", ["validation_error", "validation_loss"])
@pytest.mark.parametrize("cut", [None, 13, 31, 42])
def test_top_holds_the_best_epochs_after_an_interruption_too(tmp_path, data, scripted, by, cut):
    config = replace(BASE, keep_top=3, best_by=by)
    if cut is not None:
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_net(), data, config, seed=0, out=tmp_path, callback=StopAfter(cut))
        assert kept(tmp_path) == sorted(e.epoch for e in rank_epochs_of(SCRIPT[: (cut - 1) // 6], by)[:3])
    fit(tiny_net(), data, config, seed=0, out=tmp_path)
    assert kept(tmp_path) == ([2, 5, 6] if by == "validation_error" else [3, 5, 6])
    assert read_checkpoint(tmp_path / "best").history[-1].epoch == (5 if by == "validation_error" else 3)


def rank_epochs_of(script: list[tuple[float, float]], by) -> list[EpochRecord]:
    def record(epoch: int, error: float, loss: float) -> EpochRecord:
        metrics = Metrics(loss=loss, error=error, n=1)
        return EpochRecord(epoch=epoch, learning_rate=0.1, running_loss=1, train=None, validation=metrics, seconds=1)

    return rank_epochs([record(epoch, *values) for epoch, values in enumerate(script, 1)], by)


def test_ranking_breaks_ties_by_the_other_measure_then_by_the_earlier():
    assert [e.epoch for e in rank_epochs_of(SCRIPT, "validation_error")] == [5, 6, 2, 8, 3, 1, 4, 7]
    assert [e.epoch for e in rank_epochs_of(SCRIPT, "validation_loss")] == [3, 5, 6, 8, 2, 7, 4, 1]


@pytest.mark.parametrize(("patience", "epochs"), [(1, 3), (2, 4), (3, 8), (None, 8)])
def test_run_ends_after_so_many_epochs_without_a_best(tmp_path, data, scripted, patience, epochs):
    config = replace(BASE, early_stop=patience)
    assert len(fit(tiny_net(), data, config, seed=0, out=tmp_path)) == epochs
    # And stays ended.
    assert len(fit(tiny_net(), data, config, seed=0, out=tmp_path, callback=StopAfter(6 * epochs + 1))) == epochs


def test_training_set_is_evaluated_at_the_end_alone_where_asked(data, monkeypatch):
    history = fit(tiny_net(), data, replace(BASE, epochs=3, evaluate_train="end"), seed=0)
    whole = fit(tiny_net(), data, replace(BASE, epochs=3), seed=0)
    assert [e.train for e in history] == [None, None, whole[2].train]
    assert [e.validation for e in history] == [e.validation for e in whole]


def test_training_set_is_evaluated_at_an_early_end_too(data, scripted):
    history = fit(tiny_net(), data, replace(BASE, early_stop=1, evaluate_train="end"), seed=0)
    assert len(history) == 3
    assert history[-1].train is not None


def test_a_net_that_can_fits_a_few_batches(data):
    config = replace(BASE, epochs=12, overfit_batches=2, lr=0.1)
    loader = make_loader(data, config, torch.device("cpu"), seed=0)
    passes = [torch.cat([labels for _, labels in loader.shuffled(0, epoch)]) for epoch in (1, 2, 3)]
    assert len(loader) == 32
    assert loader.steps == 2
    assert not torch.equal(passes[0], passes[1])
    assert all(torch.equal(labels.sort().values, passes[0].sort().values) for labels in passes)
    first = make_loader(data, replace(config, overfit_batches=None), torch.device("cpu"), seed=0).shuffled(0, 1)
    seen = torch.cat([next(first)[0] for _ in range(2)])
    ours = torch.cat([images for images, _ in loader.in_order()])
    assert sorted(seen.sum((1, 2, 3)).tolist()) == sorted(ours.sum((1, 2, 3)).tolist())
    history = fit(tiny_net(), data, config, seed=0)
    assert history[-1].train == Metrics(loss=history[-1].train.loss, error=0.0, n=32)
    assert fit(tiny_net(), data, replace(config, overfit_batches=1000, epochs=1), seed=0)[0].train.n == 96


def test_checkpoints_come_every_so_many_steps_of_the_run(tmp_path, data):
    class Look(NoCallback):
        def __init__(self) -> None:
            self.found: list[tuple[int, int]] = []

        def on_step(self, step: int, steps: int, stats) -> None:
            if (tmp_path / "last").is_dir():
                state = json.loads((tmp_path / "last" / "state.json").read_text())
                self.found.append((step, 6 * len(state["history"]) + state["step"]))

    look = Look()
    fit(tiny_net(), data, replace(BASE, epochs=2, save_every=4), seed=0, out=tmp_path, callback=look)
    # Told of a step before it is saved: 4 is on disk from step 5 on, 6 ends the epoch, 8 is the next.
    assert look.found == [(5, 4), (6, 4), (7, 6), (8, 6), (9, 8), (10, 8), (11, 8), (12, 8)]

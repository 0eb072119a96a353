"""When a run ends, what it measures, and which epochs it keeps."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from resnetlab.core.errors import StorageError
from resnetlab.core.files import read_folder, replace_folder
from resnetlab.data.config import AugmentConfig
from resnetlab.records.run import EpochRecord, Metrics, rank_epochs
from resnetlab.train.checkpoint import DTYPES, read_checkpoint, safetensors_pieces
from resnetlab.train.checkpoint_manager import CheckpointManager
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


def saved_at(tmp_path: Path, data, monkeypatch, **settings) -> list[int]:
    """The step that last/ holds, at every save of two epochs of 6 steps."""
    found, write = [], CheckpointManager._write

    def noted(manager, held):
        write(manager, held)
        state = json.loads((tmp_path / "last" / "state.json").read_text())
        found.append(6 * len(state["history"]) + state["step"])

    monkeypatch.setattr(CheckpointManager, "_write", noted)
    fit(tiny_net(), data, replace(BASE, epochs=2, **settings), seed=0, out=tmp_path)
    return found


def test_checkpoints_come_every_so_many_steps_of_the_run(tmp_path, data, monkeypatch):
    assert saved_at(tmp_path, data, monkeypatch, save_every=4, save_every_seconds=0) == [4, 6, 8, 12, 12]


@pytest.mark.parametrize(("settings", "saves"), [({}, [6, 12]), ({"save_every_seconds": 0}, [6, 12])])
def test_first_and_last_epoch_are_saved_whatever_the_interval(tmp_path, data, monkeypatch, settings, saves):
    assert saved_at(tmp_path, data, monkeypatch, **settings) == saves


HELD = {"save_every_seconds": 3600}


def test_epochs_that_are_held_back_end_in_the_same_checkpoints(tmp_path, data, scripted):
    fit(tiny_net(), data, BASE, seed=0, out=tmp_path / "a", save_every_seconds=0)
    fit(tiny_net(), data, BASE, seed=0, out=tmp_path / "b", **HELD)
    for which, epoch in (("last", 8), ("best", 5)):
        assert read_checkpoint(tmp_path / "b" / which).history[-1].epoch == epoch
        for name in ("model.safetensors", "training.safetensors"):
            assert (tmp_path / "a" / which / name).read_bytes() == (tmp_path / "b" / which / name).read_bytes()
    assert len((tmp_path / "b" / "metrics.jsonl").read_text().splitlines()) == 8
    assert not (tmp_path / "b" / "last.previous.previous").exists()


@pytest.mark.parametrize("cut", [20, 31])
def test_run_that_fails_keeps_the_epochs_that_were_held_back(tmp_path, data, scripted, cut):
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_net(), data, BASE, seed=0, out=tmp_path, callback=StopAfter(cut), **HELD)
    assert read_checkpoint(tmp_path / "last").history[-1].epoch == (cut - 1) // 6
    assert read_checkpoint(tmp_path / "best").history[-1].epoch == (2 if cut == 20 else 5)


def test_best_and_last_share_their_bytes_and_neither_changes_with_the_other(tmp_path, data, scripted):
    def links(which: str) -> int:
        return (tmp_path / which / "model.safetensors").stat().st_nlink

    fit(tiny_net(), data, replace(BASE, epochs=2), seed=0, out=tmp_path)
    assert (links("best"), links("last")) == (2, 2)
    best = read_folder(tmp_path / "best")
    assert best[1] == read_folder(tmp_path / "last")[1]
    fit(tiny_net(), data, replace(BASE, epochs=4), seed=0, out=tmp_path)
    assert read_folder(tmp_path / "best") == best
    assert read_checkpoint(tmp_path / "last").history[-1].epoch == 4


def test_without_hard_links_the_files_are_copied(tmp_path, data, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    fit(tiny_net(), data, replace(BASE, epochs=1), seed=0, out=tmp_path)
    assert read_folder(tmp_path / "best")[1] == read_folder(tmp_path / "last")[1]
    assert (tmp_path / "last" / "model.safetensors").stat().st_nlink == 1


@pytest.mark.parametrize("settings", [HELD, {"save_every_seconds": 0}, {"save_every": 2}])
def test_error_while_a_checkpoint_is_written_ends_the_run(tmp_path, data, monkeypatch, settings):
    def refuse(folder, contents):
        raise StorageError(f"cannot write {folder}")

    monkeypatch.setattr("resnetlab.train.checkpoint_manager.replace_folder", refuse)
    with pytest.raises(StorageError, match="cannot write"):
        fit(tiny_net(), data, replace(BASE, epochs=2), seed=0, out=tmp_path, **settings)
    assert threading.active_count() == 1


def test_training_that_goes_on_changes_nothing_of_what_is_being_written(tmp_path, data, monkeypatch):
    begun, changed = threading.Event(), threading.Event()

    def slow(folder, contents):
        begun.set()
        assert changed.wait(10)
        replace_folder(folder, contents)

    monkeypatch.setattr("resnetlab.train.checkpoint_manager.replace_folder", slow)
    net, config = tiny_net(), replace(BASE, epochs=1)
    trainer = Trainer(net, make_loader(data, config, torch.device("cpu")), config, seed=0, out=tmp_path)
    trainer.train_epoch()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trainer.checkpoints.save_within_epoch()
    assert begun.wait(10)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.add_(1)
    changed.set()
    trainer.checkpoints.wait()
    assert all(torch.equal(value, before[name]) for name, value in read_checkpoint(tmp_path / "last").model.items())


def test_pieces_of_a_checkpoint_are_what_safetensors_writes():
    draw = torch.Generator().manual_seed(0)
    tensors = {
        f"é{number}.{'ab'[number % 2]}": (3 * torch.randn(shape, generator=draw)).to(dtype)
        for number, (dtype, shape) in enumerate(
            [(dtype, shape) for dtype in DTYPES for shape in ((), (0, 3), (5, 7), (3, 1, 2, 2))]
        )
    }
    tensors["large"] = torch.randn(700, 700, generator=draw).t()
    tensors["last"] = torch.randn(8, 3, 3, 3, generator=draw).to(memory_format=torch.channels_last)
    for metadata in (None, {"format": "pt"}):
        contiguous = {name: value.contiguous() for name, value in tensors.items()}
        assert b"".join(safetensors_pieces(tensors, metadata)) == save(contiguous, metadata=metadata)

"""A run's folder: it is the run's from the first step on, and what was edited in it since is told."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest
import yaml

from resnetlab.core.errors import CheckpointError, ConfigError, DataError, StoppedError
from resnetlab.core.files import folder_exists
from resnetlab.core.serialize import read_record
from resnetlab.records.run import RunRecord
from resnetlab.report.run.tables import run_verdict
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.folder import Claim
from resnetlab.train.loop import Trainer, fit
from resnetlab.train.recipe import Recipe, read_recipe
from resnetlab.train.run import evaluate_run, run_recipe
from resnetlab.train.signals import StopRequest
from tests.faults.runs import StopAt
from tests.train.runs import Notes, tiny_net

RECIPE = Recipe(
    model="cifar_resnet8",
    options={"widths": "[4, 8, 16]", "stem_width": "4"},
    training=TrainConfig(epochs=3, batch_size=256),
)
"""Five steps an epoch."""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run of three epochs that was stopped in its second."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    stop = StopRequest()
    with pytest.raises(StoppedError):
        run_recipe(RECIPE, out, callback=StopAt(stop, 8), stop=stop, page=False)
    return out


@pytest.fixture
def run(tmp_path, stopped) -> Path:
    return copytree(stopped, tmp_path / "run")


def edit(out: Path, change: Callable[[dict], object]) -> None:
    plain = yaml.safe_load((out / "recipe.yaml").read_text())
    change(plain)
    (out / "recipe.yaml").write_text(yaml.safe_dump(plain))


def resume(out: Path, **settings) -> RunRecord:
    return run_recipe(read_recipe(out / "recipe.yaml"), out, resume=True, page=False, **settings)


EDITS = {
    "training.epochs: 3 → 6": lambda plain: plain["training"].update(epochs=6),
    "training.lr: 0.05 → 0.5": lambda plain: plain["training"].update(lr=0.5),
    "seed: 0 → 1": lambda plain: plain.update(seed=1),
    "options.activation: None → gelu": lambda plain: plain["options"].update(activation="gelu"),
    "split_seed: 0 → 3": lambda plain: plain.update(split_seed=3),
}


@pytest.mark.parametrize("told", EDITS)
def test_edited_recipe_is_refused_with_what_differs(run, told):
    edit(run, EDITS[told])
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="--accept-changes") as refused:
        resume(run)
    assert told in str(refused.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    with pytest.raises(ConfigError, match=f"recipe.yaml: {told}"):
        evaluate_run(run)


def test_edit_behind_the_settings_of_the_command_is_told_too(run):
    """The command gives the recipe of then; the file in the folder no longer says it."""
    edit(run, EDITS["training.epochs: 3 → 6"])
    with pytest.raises(ConfigError, match=r"recipe\.yaml: training\.epochs: 3 → 6"):
        run_recipe(RECIPE, run, resume=True)


def test_accepted_change_is_told_and_stands_in_the_record_and_on_the_page(run):
    edit(run, EDITS["training.epochs: 3 → 6"])
    told = Notes()
    record = resume(run, accept_changes=True, callback=told)
    change = "changed after epoch 1, step 3: training.epochs: 3 → 6"
    assert record.changes == [change]
    assert [note for note in told.notes if change in note]
    assert read_record(RunRecord, run / "record.json") == record
    assert any(change in line for line in run_verdict(record))
    assert len(record.history) == 6
    assert evaluate_run(run) == record.final.test


def test_accepted_change_is_kept_when_the_run_stops_again(run):
    edit(run, EDITS["training.epochs: 3 → 6"])
    stop = StopRequest()
    with pytest.raises(StoppedError):
        resume(run, accept_changes=True, callback=StopAt(stop, 10), stop=stop)
    assert resume(run).changes == ["changed after epoch 1, step 3: training.epochs: 3 → 6"]


def test_accepted_change_that_fails_leaves_what_was_there(run):
    """Another network does not fit the checkpoint."""
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with pytest.raises(CheckpointError, match="another network"):
        run_recipe(replace(RECIPE, shortcut="B"), run, resume=True, page=False, accept_changes=True)
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
    assert resume(run).changes == []


def test_run_that_has_ended_takes_no_change(run):
    resume(run)
    edit(run, EDITS["training.epochs: 3 → 6"])
    with pytest.raises(ConfigError, match=r"training\.epochs: 3 → 6; .*--weights"):
        resume(run, accept_changes=True)


def test_recipe_of_other_spelling_is_the_same(run):
    (run / "recipe.yaml").write_text("# mine\n" + (run / "recipe.yaml").read_text())
    assert resume(run).changes == []


@pytest.mark.parametrize("name", ["data.json", "classes.json"])
@pytest.mark.parametrize("damage", ["edited", "gone"])
def test_edited_data_or_classes_are_refused_or_written_again(run, name, damage):
    whole = (run / name).read_bytes()
    if damage == "gone":
        (run / name).unlink()
    else:
        (run / name).write_bytes(whole.replace(b'"3"', b'"x"'))
    for use in (resume, evaluate_run):
        with pytest.raises(DataError, match=f"{name} has changed since the run wrote it"):
            use(run)
    assert resume(run, accept_changes=True).changes == []
    assert json.loads((run / name).read_bytes()) == json.loads(whole)


def test_data_that_agree_with_an_edited_note_are_not_those_of_the_checkpoint(run):
    """Other data, with note and manifest made to fit: the checkpoint knows."""
    (run / "run.json").unlink()
    noted = json.loads((run / "data.json").read_text())
    other = replace(RECIPE, split_seed=1)
    fresh = run.with_name("fresh")
    run_recipe(replace(other, training=replace(other.training, epochs=1)), fresh, page=False)
    noted["sha256"] = json.loads((fresh / "data.json").read_text())["sha256"]
    (run / "data.json").write_text(json.dumps(noted))
    with pytest.raises(DataError, match="has changed since"):
        resume(run)


def test_damaged_manifest_is_refused(run):
    (run / "run.json").write_text("[]")
    with pytest.raises(DataError, match=r"run\.json is damaged"):
        resume(run)


def test_fit_with_other_settings_than_its_checkpoint_says_so(tmp_path, data):
    config = TrainConfig(epochs=1, batch_size=16)
    fit(tiny_net(), data, config, seed=0, out=tmp_path)
    told = Notes()
    fit(tiny_net(), data, replace(config, epochs=2), seed=0, out=tmp_path, callback=told)
    assert [note for note in told.notes if "epochs: 1 → 2" in note]
    assert read_checkpoint(tmp_path / "last").settings.changes == ["changed after epoch 1, step 0: epochs: 1 → 2"]


def fail_in_first_step(*_) -> None:
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("name", ["weights", "freeze", "first step"])
def test_failed_start_leaves_the_folder_to_the_next_attempt(tmp_path, monkeypatch, name):
    (tmp_path / "notes.md").write_text("x")
    out, wrong = tmp_path / "a" / "run", RECIPE
    if name == "weights":
        (tmp_path / "w.safetensors").write_bytes(b"x" * 100)
        wrong = replace(RECIPE, weights=str(tmp_path / "w.safetensors"))
    elif name == "freeze":
        wrong = replace(RECIPE, training=replace(RECIPE.training, freeze="stages.9"))
    else:
        monkeypatch.setattr(Trainer, "take_step", fail_in_first_step)
    with pytest.raises((CheckpointError, ConfigError, RuntimeError)):
        run_recipe(wrong, out, page=False)
    monkeypatch.undo()
    assert not (tmp_path / "a").exists()
    assert run_recipe(replace(RECIPE, seed=2), out, page=False).status == "finished"


@pytest.mark.parametrize("resume", [False, True])
def test_start_that_was_killed_before_its_first_checkpoint_leaves_the_folder_to_the_next_attempt(
    tmp_path, monkeypatch, resume
):
    """A kill runs no clean-up: recipe, data note and manifest stay."""
    monkeypatch.setattr(Trainer, "take_step", fail_in_first_step)
    monkeypatch.setattr(Claim, "undo", lambda _: None)
    with pytest.raises(RuntimeError):
        run_recipe(RECIPE, tmp_path / "run", page=False)
    monkeypatch.undo()
    assert (tmp_path / "run" / "recipe.yaml").is_file()
    other = replace(RECIPE, seed=2, split_seed=3)
    found, fresh = (run_recipe(other, tmp_path / name, resume=resume, page=False) for name in ("run", "fresh"))
    assert (found.history[-1].running_loss, found.data) == (fresh.history[-1].running_loss, fresh.data)
    assert found.recipe["seed"] == 2
    run_recipe(other, tmp_path / "run", resume=True, page=False)


def test_failed_start_leaves_what_was_there_before(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "take_step", fail_in_first_step)
    with pytest.raises(RuntimeError):
        run_recipe(RECIPE, tmp_path, page=False)
    assert list(tmp_path.iterdir()) == []


def test_fault_after_a_checkpoint_leaves_the_run(run, monkeypatch):
    monkeypatch.setattr(Trainer, "take_step", fail_in_first_step)
    with pytest.raises(RuntimeError):
        resume(run)
    monkeypatch.undo()
    assert folder_exists(run / "last")
    assert resume(run).status == "finished"


@pytest.mark.parametrize("error", [MemoryError(), ImportError("matplotlib"), ValueError("x"), RuntimeError("x")])
def test_fault_in_drawing_leaves_a_run_that_has_ended(tmp_path, monkeypatch, error):
    from resnetlab.report.run import page

    def fail(*_):
        raise error

    told = Notes()
    monkeypatch.setattr(page, "write_run_report", fail)
    recipe = replace(RECIPE, training=replace(RECIPE.training, epochs=1))
    record = run_recipe(recipe, tmp_path, callback=told)
    assert record.status == "finished"
    assert read_record(RunRecord, tmp_path / "record.json") == record
    assert [note for note in told.notes if f"resnetlab report {tmp_path}" in note]


def test_fault_in_the_examination_leaves_a_record_and_a_page(tmp_path, monkeypatch):
    from resnetlab.train import evaluate

    monkeypatch.setattr(evaluate, "classification_report", fail_in_first_step)
    recipe, told = replace(RECIPE, training=replace(RECIPE.training, epochs=1)), Notes()
    assert run_recipe(recipe, tmp_path, callback=told).status == "finished"
    assert (tmp_path / "report.html").is_file()
    assert [note for note in told.notes if "could not be examined" in note]

"""What the runs of a study keep once they have ended."""

import json
from dataclasses import replace

import pytest

from resnetlab.core.errors import DataError
from resnetlab.data.config import AugmentConfig
from resnetlab.diagnostics.config import DiagnosisConfig
from resnetlab.study import Study, plan_runs, run_study
from resnetlab.study.config import study_recipe
from resnetlab.study.diagnosis import diagnose_study
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.config import TrainConfig
from resnetlab.train.run import evaluate_run, read_trained
from tests.study.conftest import timeless

SHORT = TrainConfig(epochs=2, max_steps=6, batch_size=128, device="cpu", augment=AugmentConfig(crop_padding=0))
TINY = Study(recipe=replace(study_recipe(), model="mlp_resnet8", training=SHORT), axes={"depth": ("4",)}, seeds=1)
READ = DiagnosisConfig(what=("residuals",), images=20, batch_size=16, device="cpu")


def with_recipe(**changes) -> Study:
    return replace(TINY, recipe=replace(TINY.recipe, **changes))


def kept(out) -> set[str]:
    (run,) = (out / "runs").iterdir()
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.parent != run}


def test_weights_of_the_last_epoch_are_kept_without_the_optimizer(tmp_path):
    record = run_study(TINY, tmp_path).runs[0].record
    assert kept(tmp_path) == {"last/manifest.json", "last/model.safetensors", "last/state.json"}
    run = plan_runs(TINY)[0].folder(tmp_path)
    assert evaluate_run(run) == record.final.test
    for checkpoint in ("last", "best"):
        assert len(diagnose_study(tmp_path, replace(READ, checkpoint=checkpoint)).runs) == 1


def test_best_weights_are_kept_where_validation_chose_them(tmp_path):
    run_study(with_recipe(validation=True), tmp_path)
    assert {name for name in kept(tmp_path) if name.startswith("best/")} == {
        "best/manifest.json",
        "best/model.safetensors",
        "best/state.json",
    }
    assert "last/training.safetensors" not in kept(tmp_path)


def test_moving_average_keeps_the_network_behind_it(tmp_path):
    run_study(with_recipe(training=replace(SHORT, ema=0.9)), tmp_path)
    assert "last/training.safetensors" in kept(tmp_path)


def test_run_whose_record_is_deleted_is_made_again_from_what_is_kept(tmp_path):
    run_study(TINY, tmp_path / "study")
    before = timeless(tmp_path / "study")
    (plan_runs(TINY)[0].folder(tmp_path / "study") / "record.json").unlink()
    run_study(TINY, tmp_path / "study")
    assert timeless(tmp_path / "study") == before


def test_checkpoints_are_kept_where_that_is_asked_for(tmp_path):
    run_study(TINY, tmp_path, keep="checkpoints")
    assert {"last/training.safetensors", "best/model.safetensors"} <= kept(tmp_path)
    assert read_checkpoint(plan_runs(TINY)[0].folder(tmp_path) / "last").training


def test_without_weights_a_diagnosis_says_what_to_do(tmp_path):
    run_study(with_recipe(training=replace(SHORT, keep_top=1)), tmp_path, keep="none")
    assert kept(tmp_path) == set()
    with pytest.raises(DataError, match=r"weights were not kept; delete its record\.json .* --keep weights"):
        diagnose_study(tmp_path, READ)


def test_file_that_was_taken_out_leaves_a_whole_checkpoint(tmp_path):
    run_study(TINY, tmp_path)
    run = plan_runs(TINY)[0].folder(tmp_path)
    assert "training.safetensors" not in json.loads((run / "last" / "manifest.json").read_text())["files"]
    _, checkpoint = read_trained(run)
    assert checkpoint.training == {}
    assert checkpoint.model

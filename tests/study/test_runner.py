import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from resnetlab.core.errors import CheckpointError, ConfigError, DataError
from resnetlab.data.config import AugmentConfig
from resnetlab.study import NoStudyCallback, Study, plan_runs, read_results, read_study, run_study, study_command
from resnetlab.study.config import study_recipe
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe
from tests.study.conftest import timeless

SHORT = TrainConfig(epochs=2, batch_size=128, device="cpu", augment=AugmentConfig(crop_padding=0))
TINY = Study(
    recipe=replace(study_recipe(), model="mlp_resnet8", training=SHORT),
    axes={"shortcut": ("none", "default"), "depth": ("4", "8")},
    seeds=2,
)
STEPS = 2 * (1437 // 128)


class Began(NoStudyCallback):
    """Notes which runs began, and interrupts one of them behind a step."""

    def __init__(self, stop_in: int = 0, stop_after: int = 0) -> None:
        self.names: list[str] = []
        self.stop_in, self.stop_after = stop_in, stop_after

    def on_run_start(self, run, number, total):
        assert total == 8
        self.names.append(run.name)
        stop = self.stop_after if len(self.names) == self.stop_in else 0

        class Callback(NoCallback):
            def on_step(self, step, steps, stats):
                if step == stop:
                    raise KeyboardInterrupt

        return Callback()

    def on_run_end(self, run, record):
        assert record.status == "finished"


def test_study_whose_first_run_cannot_start_leaves_the_folder_to_the_next_attempt(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"x" * 100)
    study = replace(TINY, seeds=1, axes={"depth": ("4",)})
    with pytest.raises(CheckpointError):
        run_study(replace(study, recipe=replace(study.recipe, weights=str(tmp_path / "w.safetensors"))), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert len(run_study(study, str(tmp_path / "a")).runs) == 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("study") / "whole"
    run_study(TINY, out, Began())
    return out


@pytest.fixture
def copy(tmp_path, whole) -> Path:
    return shutil.copytree(whole, tmp_path / "copy")


def test_every_combination_is_run_with_every_seed_and_differs_in_the_axes_alone(whole):
    study = read_study(whole)
    assert len(study.runs) == study.planned == 8
    first = study.runs[0].record.recipe
    for run, planned in zip(study.runs, plan_runs(TINY), strict=True):
        recipe = run.record.recipe
        assert (recipe["model"], recipe["shortcut"]) == (f"mlp_resnet{run.values['depth']}", run.values["shortcut"])
        assert (run.values, recipe["seed"]) == (planned.values, planned.seed)
        assert {**recipe, "model": first["model"], "shortcut": first["shortcut"], "seed": first["seed"]} == first
    assert [(contrast.axis, contrast.others["depth"]) for contrast in study.contrasts] == [
        ("shortcut", "4"),
        ("shortcut", "8"),
    ]
    assert [verdict.values for verdict in study.verdicts] == [{"shortcut": "none"}, {"shortcut": "default"}]
    assert read_results(whole / "results.json") == study
    assert {json.loads((whole / name).read_text())["format"] for name in ("study.json", "results.json")} == {2}


@pytest.mark.parametrize(("stop_in", "stop_after"), [(1, 1), (3, 15), (8, STEPS - 1)])
def test_interrupted_study_is_resumed_to_the_same_results(tmp_path, whole, stop_in, stop_after):
    first, second = Began(stop_in, stop_after), Began()
    with pytest.raises(KeyboardInterrupt):
        run_study(TINY, tmp_path / "cut", first)
    run_study(TINY, tmp_path / "cut", second)
    # The run that was cut off is the only one that began twice.
    assert [*first.names[:-1], *second.names] == [run.name for run in plan_runs(TINY)]
    assert timeless(tmp_path / "cut") == timeless(whole)


def test_run_of_a_study_takes_one_thread_whatever_the_process_has(tmp_path):
    """Sums over several threads have another order, and the error of a plain net that degrades another value."""
    torch.set_num_threads(2)
    try:
        record = run_study(replace(TINY, axes={"depth": ("4",)}, seeds=1), tmp_path / "study")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert record.runs[0].record.environment["threads"] == 1


def test_killed_study_is_resumed_to_the_same_results(tmp_path, whole):
    """kill -9 in the middle of a run, in a process of its own."""
    words = shlex.split(study_command(TINY))[1:]
    words[words.index("STUDY")] = str(tmp_path / "killed")
    process = subprocess.Popen(
        [sys.executable, "-m", "resnetlab", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while not (tmp_path / "killed" / "runs" / "plain-8-seed0" / "metrics.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "results.json").exists()
    again = Began()
    run_study(TINY, tmp_path / "killed", again)
    assert "plain-4-seed0" not in again.names
    assert timeless(tmp_path / "killed") == timeless(whole)


def test_finished_study_repeats_nothing(copy):
    again = Began()
    run_study(TINY, copy, again)
    assert again.names == []


def test_changed_settings_are_refused_with_what_differs(whole):
    changed = replace(TINY, seeds=3, recipe=replace(TINY.recipe, training=replace(SHORT, batch_size=64)))
    with pytest.raises(ConfigError, match=r"recipe\.training\.batch_size: 128 → 64, seeds: 2 → 3"):
        run_study(changed, whole)
    with pytest.raises(ConfigError, match=r"axes\.shortcut"):
        run_study(replace(TINY, axes={**TINY.axes, "shortcut": ("B",)}), whole)


def test_more_seeds_only_add_runs(tmp_path, whole):
    one = replace(TINY, seeds=1)
    with pytest.raises(ConfigError, match="seeds: 2 → 1"):
        run_study(one, whole)
    run_study(one, tmp_path / "more")
    again = Began()
    run_study(TINY, tmp_path / "more", again)
    assert len(again.names) == 4
    assert all(name.endswith("seed1") for name in again.names)
    assert timeless(tmp_path / "more") == timeless(whole)


def test_study_of_data_that_are_missing_writes_nothing(tmp_path):
    with pytest.raises(DataError):
        run_study(Study(recipe=Recipe(data="idx:nowhere")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_that_have_changed_are_refused(copy):
    noted = json.loads((copy / "data.json").read_text())
    (copy / "data.json").write_text(json.dumps(noted | {"sha256": "0"}))
    with pytest.raises(DataError, match="has changed"):
        run_study(TINY, copy)


def test_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "x").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        run_study(TINY, tmp_path)
    with pytest.raises(ConfigError, match="is a file"):
        run_study(TINY, tmp_path / "x")


def test_reading_what_is_no_study_or_has_no_run_yet_is_a_data_error(tmp_path, whole):
    with pytest.raises(DataError, match="holds no study"):
        read_study(tmp_path)
    (tmp_path / "study.json").write_bytes((whole / "study.json").read_bytes())
    with pytest.raises(DataError, match="no run"):
        read_study(tmp_path)


def test_reading_a_damaged_record_is_a_data_error(copy):
    (copy / "runs" / "plain-4-seed0" / "record.json").write_text('{"model": 3}')
    with pytest.raises(DataError, match=r"plain-4-seed0.*delete the file"):
        read_study(copy)
    with pytest.raises(DataError, match="delete the file"):
        run_study(TINY, copy)
    shutil.copy(copy / "runs" / "plain-8-seed0" / "record.json", copy / "runs" / "plain-4-seed0" / "record.json")
    with pytest.raises(DataError, match="record of another run"):
        read_study(copy)
    for text in ("[]", "{}", "null", "[" * 100_000, '{"format": 3}', '{"family": 3}', '{"axes": 1, "recipe": []}'):
        (copy / "study.json").write_text(text)
        with pytest.raises(DataError, match=r"study\.json"):
            run_study(TINY, copy)

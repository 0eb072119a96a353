"""``resnetlab train``: recipe files, what overrides what, stop and resume, fine-tuning."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import is_dataclass
from typing import get_type_hints

import pytest
import torch
import yaml
from safetensors.torch import load_file

from resnetlab.data.config import SOURCES
from resnetlab.train.recipe import Recipe, load_recipe, read_recipe

TINY = """
model: cifar_resnet8
options: {zero_init_residual: true}
training: {epochs: 3, batch_size: 256, lr: 1e-2, augment: {flip: true, crop_padding: 0}}
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def printed(run, *words):
    code, out, errors = run("train", *words, "--print-config")
    assert (code, errors) == (0, "")
    return yaml.safe_load(out)


def test_flags_override_the_file_and_the_file_the_defaults(run, recipe):
    found = printed(run, recipe, "--epochs", "5", "--no-flip", "--options", "scale_residual", "false", "--seed", "7")
    assert found["model"] == "cifar_resnet8"
    assert found["seed"] == 7
    assert found["options"] == {"zero_init_residual": "true", "scale_residual": "false"}
    assert (found["training"]["epochs"], found["training"]["batch_size"], found["training"]["lr"]) == (5, 256, 0.01)
    assert found["training"]["augment"]["flip"] is False
    assert found["training"]["augment"]["crop_padding"] == 0
    assert found["training"]["momentum"] == 0.9


def test_printed_recipe_is_a_recipe_and_nothing_else_happens(run, recipe, tmp_path):
    found = printed(run, recipe, "--out", tmp_path / "run")
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(found))
    assert load_recipe(tmp_path / "again.yaml") == load_recipe(recipe)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x", "unknown setting 'modle'; did you mean 'model'"),
        ("training: {epochz: 3}", "unknown setting 'training.epochz'; did you mean 'training.epochs'"),
        ("training: {augment: {flipp: true}}", "did you mean 'training.augment.flip'"),
        ("training: {epochs: many}", "training.epochs='many' is not possible: it must be a whole number"),
        ("training: {epochs: 2.5}", "training.epochs=2.5 is not possible"),
        ("training: {augment: {flip: 1}}", "training.augment.flip=1 is not possible: it must be true or false"),
        ("training: {head_lr: x}", "it must be a number, or left out"),
        ("training: {milestones: 3}", "it must be a list, each a whole number"),
        ("training: {augment: {crop_scale: [1]}}", "it must be a list of 2, each a number"),
        ("training: {optimizer: sdg}", "unknown training.optimizer 'sdg'; did you mean 'sgd'"),
        ("training: {epochs: 0}", "epochs=0 is not possible"),
        ("training: 3", "training=3 is not possible: it must hold settings"),
        ("options: 3", "options=3 is not possible"),
        ("- model", "is no recipe"),
        ("3: 4", "unknown setting '3'"),
    ],
)
def test_slip_in_a_file_gives_exit_code_two_and_names_the_key(run, tmp_path, text, message):
    (tmp_path / "slip.yaml").write_text(text)
    code, _, errors = run("train", tmp_path / "slip.yaml", "--out", tmp_path / "run")
    assert code == 2
    assert message in errors
    assert "slip.yaml" in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["training: {epochs: 3, epochs: 5}", "model: [", "\x00", "? [a]\n: 3"])
def test_file_that_is_no_yaml_gives_exit_code_three(run, tmp_path, text):
    (tmp_path / "slip.yaml").write_text(text)
    code, _, errors = run("train", tmp_path / "slip.yaml")
    assert code == 3
    assert "cannot be read" in errors


def test_missing_file_gives_exit_code_three(run, tmp_path):
    code, _, errors = run("train", tmp_path / "none.yaml")
    assert code == 3
    assert "there is no recipe" in errors
    assert "settings as flags" in errors


@pytest.mark.parametrize("before", [("--epochs", "3"), ("--gamma", "0.5"), ("--flip",)])
def test_file_behind_flags_is_refused_with_the_remedy(run, recipe, before):
    code, _, errors = run("train", *before, recipe)
    assert code == 2
    assert f"resnetlab train {recipe} …" in errors


def test_help_shows_what_matters_first_then_every_flag_once(run):
    code, shown, _ = run("train", "--help")
    assert (code, "[RECIPE]" in shown, "[RECIPE]" in run("find-lr", "--help")[1]) == (0, True, True)
    titles = ["The flags that matter most", "What --data takes", "Examples", "Exit codes", "Run and output", "Network"]
    found = [shown.index(f"\n{title}\n") for title in titles]
    assert found == sorted(found)
    first = shown[: found[1]]
    assert all(f"  --{name} " in first for name in ("model", "data", "epochs", "lr", "seed", "out", "resume", "device"))
    assert all(f"\n  {source} " in shown for source in SOURCES)
    # The flags that the help shows are those that the command takes.
    flags = re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE)
    assert len(flags) == len(set(flags)) > 60
    expected = {f"--{name.replace('_', '-')}" for name in names_of(Recipe)}
    own = {
        "--out",
        "--resume",
        "--accept-changes",
        "--log",
        "--quiet",
        "--json",
        "--print-config",
        "--time",
        "--tune",
        "--choose",
        "--reindex",
    }
    assert expected | own == set(flags)


def names_of(settings: type) -> list[str]:
    kinds = get_type_hints(settings)
    nested = [names_of(kind) if is_dataclass(kind) else [name] for name, kind in kinds.items()]
    return [name for names in nested for name in names]


@pytest.mark.parametrize("said", ["test_error", "test_loss"])
def test_best_by_test_is_answered_with_validation(run, said):
    code, _, errors = run("train", "--best-by", said)
    assert (code, f"say {said.replace('test', 'validation')}" in errors) == (2, True)


def test_run_without_validation_trains_on_all_and_its_best_is_its_last(run, recipe, tmp_path):
    code, out, _ = run("train", recipe, "--no-validation", "--epochs", "2", "--out", tmp_path / "run", "--quiet")
    assert code == 0
    assert out.startswith("test loss")
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert (record["data"]["train"], record["chosen_by"]) == (1437, None)
    assert [epoch["validation"] for epoch in record["history"]] == [None, None]
    last, best = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("last", "best"))
    assert all(torch.equal(value, best[name]) for name, value in last.items())
    assert "--no-validation" in (tmp_path / "run" / "README.md").read_text()
    code, _, errors = run("train", recipe, "--no-validation", "--early-stop", "2", "--out", tmp_path / "no")
    assert (code, "needs validation images" in errors, (tmp_path / "no").exists()) == (2, True, False)


def test_every_flag_of_training_is_one_of_a_study_too(run):
    flags = [{word for word in run(verb, "--help")[1].split() if word.startswith("--")} for verb in ("train", "study")]
    for flag in ("--epochs", "--flip,", "--crop-padding", "--image-size", "--workers", "--mixup", "--sync-bn,"):
        assert flag in flags[0] & flags[1]


def test_run_goes_on_by_its_folder_with_its_own_recipe(run, recipe, tmp_path):
    out = tmp_path / "run"
    assert run("train", recipe, "--out", out, "--quiet")[0] == 0
    recorded = (out / "record.json").read_bytes()
    (out / "record.json").unlink()
    assert run("train", "--resume", out, "--quiet")[0] == 0
    again = json.loads((out / "record.json").read_text())
    assert again["history"] == json.loads(recorded)["history"]
    assert run("train", recipe, f"--resume={out}")[0] == 0
    assert read_recipe(out / "recipe.yaml") == load_recipe(recipe)


def test_flags_that_contradict_the_run_that_goes_on_are_refused(run, recipe, tmp_path):
    out = tmp_path / "run"
    assert run("train", recipe, "--out", out)[0] == 0
    code, _, errors = run("train", "--resume", out, "--epochs", "4")
    assert code == 2
    assert "training.epochs: 3 → 4" in errors
    assert run("train", "--resume", out, "--out", tmp_path / "other")[0] == 2
    code, _, errors = run("train", "--resume", tmp_path / "nothing")
    assert code == 3
    assert "holds no run" in errors


def test_micro_batches_are_told_with_what_they_do_to_the_rate(run, recipe, tmp_path):
    errors = run("train", recipe, "--accumulate", "4", "--out", tmp_path / "run")[2]
    assert "batch: 256 images a step = 1 rank × 4 micro-batches × 64; learning rate 0.01 as given" in errors
    assert "batch:" not in run("train", recipe, "--out", tmp_path / "whole")[2]


def test_json_and_quiet_exclude_each_other(run, recipe, tmp_path):
    assert run("train", recipe, "--json", "--quiet", "--out", tmp_path / "run")[0] == 2
    out = run("train", recipe, "--json", "--out", tmp_path / "run")[1]
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["epoch", "epoch", "epoch", "result"]


def stopped(words, ready, number=signal.SIGTERM):
    """Start the command, send the signal when ``ready`` exists, and give exit code and standard error."""
    child = subprocess.Popen(
        [sys.executable, "-m", "resnetlab", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not ready.exists():
        assert time.monotonic() < deadline
        assert child.poll() is None, child.communicate()
        time.sleep(0.02)
    child.send_signal(number)
    return child.wait(60), child.communicate()[1]


def test_sigterm_saves_the_step_and_prints_the_command_that_goes_on(run, recipe, tmp_path):
    out = tmp_path / "run"
    code, errors = stopped(("train", recipe, "--epochs", "400", "--out", out), out / "last" / "manifest.json")
    assert code == 143
    assert "stopped by SIGTERM after step" in errors
    assert f"to resume: resnetlab train --resume {out}" in errors
    state = json.loads((out / "last" / "state.json").read_text())
    reached = 5 * len(state["history"]) + state["step"]
    assert f"after step {reached};" in errors
    assert 5 < reached < 2000


def test_ctrl_c_stops_a_study_with_exit_code_130_and_it_goes_on(run, tmp_path):
    words = ("study", "--family", "mlp", "--depths", "8", "--seeds", "1", "--batch-size", "256", "--out", tmp_path)
    words += ("--epochs", "40", "--workers", "1")
    code, errors = stopped(words, tmp_path / "runs" / "plain-8-seed0" / "last" / "manifest.json", signal.SIGINT)
    assert code == 130
    assert "to resume, give the same command again" in errors
    assert not (tmp_path / "results.json").exists()
    assert run(*words)[0] == 0
    assert (tmp_path / "results.json").is_file()


def test_fine_tuning_keeps_frozen_weights_and_statistics_and_gives_a_new_head(run, tmp_path):
    before = tmp_path / "before"
    assert run("train", "--model", "cifar_resnet8", "--epochs", "1", "--batch-size", "256", "--out", before)[0] == 0
    few(tmp_path / "few")
    code, _, errors = run(
        *("train", "--model", "cifar_resnet8", "--data", f"idx:{tmp_path / 'few'}", "--weights", before),
        *(
            "--freeze",
            "stages.0",
            "--head-lr",
            "0.5",
            "--epochs",
            "1",
            "--batch-size",
            "16",
            "--out",
            tmp_path / "after",
        ),
    )
    assert code == 0
    assert "head" in errors
    old, new = (load_file(path / "last" / "model.safetensors") for path in (before, tmp_path / "after"))
    assert new["head.weight"].shape[0] == 3
    frozen = [name for name in old if name.startswith(("stem", "stages.0"))]
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(old[name], new[name]) for name in frozen)
    assert not any(torch.equal(old[name], new[name]) for name in old if name.startswith("stages.1") and "conv" in name)


def few(folder):
    """A folder of MNIST files: 64 images of 8×8 pixels in 3 classes, and 12 to test."""
    import struct

    import numpy as np

    folder.mkdir()
    rng = np.random.default_rng(0)
    for part, count in (("train", 64), ("t10k", 12)):
        images = rng.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        labels = (np.arange(count) % 3).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, count, 8, 8) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, count) + labels.tobytes())

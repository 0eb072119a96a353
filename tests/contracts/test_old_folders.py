"""Folders that 0.1.0 wrote are read, drawn, evaluated and gone on with."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resnetlab.cli import main
from tests.conftest import ROOT

OLD = ROOT / "tests" / "fixtures" / "v0.1.0"


@pytest.fixture
def old(tmp_path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


@pytest.mark.parametrize("name", ["run", "study", "axes", "diagnosis", "study-diagnosis"])
def test_report_draws_the_page_of_every_kind_of_folder(old, name):
    assert main(["report", str(old / name)]) == 0
    assert (old / name / "report.html").is_file()


def test_a_finished_run_is_evaluated_to_the_figures_of_its_record(old, capsys):
    assert main(["evaluate", str(old / "run")]) == 0
    final = json.loads((OLD / "run" / "record.json").read_text())["history"][-1]["test"]
    assert f"{1 - final['error']:.2%}" in capsys.readouterr().out


def test_a_finished_run_is_diagnosed(old):
    assert main(["diagnose", str(old / "run"), "--what", "gradients", "residuals", "--out", str(old / "new")]) == 0


def test_a_run_that_was_stopped_is_finished_to_the_bits_of_then(old):
    """Where this machine and its torch round as those of then, which a run from the start tells; on another to what
    66 steps make of the rounding."""
    assert main(["train", "--resume", str(old / "stopped")]) == 0
    was = json.loads((OLD / "finished" / "record.json").read_text())
    now = json.loads((old / "stopped" / "record.json").read_text())
    assert main(["train", str(old / "stopped" / "recipe.yaml"), "--no-validation", "--out", str(old / "fresh")]) == 0
    fresh = json.loads((old / "fresh" / "record.json").read_text())
    same = fresh["history"][0]["running_loss"] == was["history"][0]["running_loss"]
    expected = load_file(OLD / "finished" / "last" / "model.safetensors")
    found = load_file(old / "stopped" / "last" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) if same else torch.allclose(found[name], tensor, rtol=0.05, atol=0.05)
    for before, after in zip(was["history"], now["history"], strict=True):
        for key in ("running_loss", "train", "test") if same else ():
            assert after[key] == before[key]


@pytest.mark.parametrize("name", ["study", "axes"])
def test_a_study_that_was_begun_is_ended_with_the_command_of_its_record(old, name):
    results = json.loads((OLD / name / "results.json").read_text())
    planned, ended = results["planned"], len(list((old / name / "runs").iterdir()))
    assert ended == planned - 1
    words = shlex.split(results["command"])[1:]
    words[words.index("--out") + 1] = str(old / name)
    assert main(words) == 0
    again = json.loads((old / name / "results.json").read_text())
    assert len(again["runs"]) == planned

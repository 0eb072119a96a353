"""Folders and records of format 1, as 0.1.0 wrote them (tests/fixtures), brought to format 2."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from resnetlab.core.errors import ConfigError, DataError
from resnetlab.core.lock import folder_lock
from resnetlab.core.serialize import as_plain
from resnetlab.study import open_study, read_results, read_study
from resnetlab.study.convert import as_study, convert_settings
from tests.conftest import ROOT

FORMER = ROOT / "tests" / "fixtures" / "v0.1.0"
BOTH = ("none", "default")


@pytest.fixture(params=["study", "axes"])
def former(tmp_path, request) -> Path:
    return shutil.copytree(FORMER / request.param, tmp_path / request.param)


def test_study_over_kinds_becomes_one_over_shortcuts():
    old = json.loads((FORMER / "study" / "study.json").read_text())
    study = as_study(old, "study.json")
    assert study.axes == {"shortcut": BOTH, "depth": ("8", "14")}
    assert (study.recipe.model, study.recipe.training.epochs, study.seeds) == ("cifar_resnet20", 1, 2)
    other = as_study(old | {"kinds": ["residual", "plain"], "shortcut": "B", "family": "imagenet"}, "study.json")
    assert other.axes["shortcut"] == ("B", "none")
    assert (other.recipe.model, other.recipe.shortcut) == ("resnet34", "default")


def test_settings_of_today_are_left_as_they_are():
    settings = {"format": 2, "recipe": {}, "axes": {"depth": ["8"]}, "seeds": 1}
    assert convert_settings(settings, "study.json") == settings


def test_record_of_format_1_has_the_same_runs_and_figures(former):
    old, new = json.loads((former / "results.json").read_text()), read_results(former / "results.json")
    assert (new.format, new.planned, new.command) == (2, old["planned"], old["command"])
    key = "cells" if "cells" in old else "combinations"
    places = [cell.get("values") or {"kind": cell["kind"], "depth": str(cell["depth"])} for cell in old[key]]
    for cell, place in zip(old[key], places, strict=True):
        values = {"shortcut": {"plain": "none", "residual": "default"}[place.pop("kind")]} if "kind" in place else {}
        (condition,) = (one for one in new.conditions if one.values == values | place)
        for quantity in ("train_loss", "train_error", "test_error"):
            assert getattr(condition, quantity).mean == pytest.approx(cell[quantity]["mean"], rel=1e-12)
    histories = [as_plain(run.record.history) for run in new.runs]
    before = [[epoch | {"validation": None} for epoch in run["record"]["history"]] for run in old["runs"]]
    assert all(history in before for history in histories)
    assert len(histories) == len(before)


def test_folder_is_converted_once_and_its_runs_are_found(former):
    ended = len(list((former / "runs").iterdir()))
    study = read_study(former)
    assert len(study.runs) == ended == study.planned - 1
    assert read_results(former / "results.json").axes == study.axes
    for run in (former / "runs").iterdir():
        recipe = yaml.safe_load((run / "recipe.yaml").read_text())
        assert json.loads((run / "record.json").read_text())["recipe"] == recipe
        assert "plain" not in recipe["model"]
        assert (recipe["shortcut"] == "none") == run.name.startswith(("plain", "none"))
    before = {path: path.read_bytes() for path in former.rglob("*") if path.is_file()}
    assert json.loads(before[former / "study.json"])["format"] == 2
    assert read_study(former) == study
    assert {path: path.read_bytes() for path in former.rglob("*") if path.is_file()} == before


def test_conversion_that_was_cut_off_is_done_by_the_next_one(former, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("resnetlab.study.convert.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            open_study(former)
    assert "format" not in json.loads((former / "study.json").read_text())
    assert len(read_study(former).runs) == read_study(former).planned - 1


def test_runs_whose_folders_were_named_otherwise_are_moved(tmp_path):
    out = shutil.copytree(FORMER / "study", tmp_path / "study")
    plain = json.loads((out / "study.json").read_text()) | {"shortcut": "B"}
    (out / "study.json").write_text(json.dumps(plain))
    open_study(out)
    assert {path.name.split("-")[0] for path in (out / "runs").iterdir()} == {"none", "B"}


def test_folder_that_another_process_writes_in_is_left_alone(former):
    with folder_lock(former), pytest.raises(ConfigError, match="another process"):
        open_study(former)


@pytest.mark.parametrize("change", [{"family": "vgg"}, {"kinds": 1}, {"depths": 8}, {"seeds": "x"}], ids=str)
def test_damaged_settings_of_format_1_are_a_data_error(change):
    old = json.loads((FORMER / "study" / "study.json").read_text())
    with pytest.raises(DataError, match=r"study\.json"):
        as_study(old | change, "study.json")


def test_format_of_a_later_version_is_refused():
    with pytest.raises(DataError, match="newer resnetlab"):
        convert_settings({"format": 3}, "study.json")

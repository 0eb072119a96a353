"""Runs on folders that were not read in full: what is found bad on the way, and what decides the data when resumed."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from resnetlab.core.errors import DataError, StoppedError
from resnetlab.data import ingest
from resnetlab.data.config import DecodeConfig
from resnetlab.train.config import TrainConfig
from resnetlab.train.recipe import Recipe, recipe_data
from resnetlab.train.run import evaluate_run, run_recipe
from resnetlab.train.signals import StopRequest
from tests.data.test_folder import add, classes_of
from tests.faults.runs import StopAt

CONFIG = TrainConfig(epochs=2, batch_size=4)


def recipe(folder: Path, **decode) -> Recipe:
    return Recipe(
        model="cifar_resnet8",
        options={"widths": "[4, 8, 16]", "stem_width": "4"},
        data=str(folder),
        decode=DecodeConfig(image_size=16, **decode),
        training=CONFIG,
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    """Thirty images, one of which is bad below its head."""
    place = classes_of(tmp_path / "set", "a", "b", count=15, size=(20, 18))
    add(place, "a/3.jpg", "a/4.jpg", "a/5.jpg", size=(200, 180))
    for name in ("a/3.jpg", "a/4.jpg", "a/5.jpg"):
        path = place / name
        path.write_bytes(path.read_bytes()[:6000])
    return place


@pytest.mark.filterwarnings("ignore:.* cannot be read")
@pytest.mark.parametrize("workers", [0, 2])
def test_run_that_skips_bad_images_on_the_way_resumes_to_the_same_bits(folder, tmp_path, monkeypatch, workers):
    """With an index and without, from the middle of an epoch."""
    given = recipe(folder, check="head", on_bad="skip", workers=workers)
    monkeypatch.setattr(ingest._Ingestion, "_sample", lambda self: self.planned["train"][-3:])
    whole, out = run_recipe(given, tmp_path / "whole", page=False), tmp_path / "out"
    stop = StopRequest()
    with pytest.raises(StoppedError):
        run_recipe(given, out, callback=StopAt(stop, 3), stop=stop, page=False)
    monkeypatch.setenv("RESNETLAB_CACHE", str(tmp_path / "elsewhere"))
    resumed = run_recipe(given, out, resume=True, page=False)
    assert [epoch.train.loss for epoch in resumed.history] == [epoch.train.loss for epoch in whole.history]
    assert (out / "last" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "last" / "model.safetensors"
    ).read_bytes()


def test_bad_image_met_on_the_way_stops_a_run_by_its_name_without_skip(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(ingest._Ingestion, "_sample", lambda self: self.planned["train"][-3:])
    with pytest.raises(DataError, match=r"a/\d\.jpg cannot be read"):
        run_recipe(recipe(folder, check="head"), tmp_path / "out", page=False)


def test_what_auto_chose_at_first_holds_for_the_run_wherever_it_is_resumed(tmp_path, monkeypatch):
    """On a machine where a full check would be quick, and that has no index."""
    folder = classes_of(tmp_path / "set", "a", "b", count=15, size=(80, 90))
    given = replace(recipe(folder), decode=DecodeConfig(image_size=70))
    with monkeypatch.context() as slow:
        for name in ("MEASURED", "ALONE", "PATIENCE"):
            slow.setattr(ingest, name, 0)
        out, stop = tmp_path / "out", StopRequest()
        with pytest.raises(StoppedError):
            run_recipe(given, out, callback=StopAt(stop, 3), stop=stop, page=False)
    assert json.loads((out / "data.json").read_text())["check"] == "head"
    monkeypatch.setenv("RESNETLAB_CACHE", str(tmp_path / "elsewhere"))
    assert recipe_data(given).check == "full"
    record = run_recipe(given, out, resume=True, page=False)
    assert record.data["check"] == "head"
    assert evaluate_run(out) == record.final.test

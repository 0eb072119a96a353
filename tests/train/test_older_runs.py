"""Runs of version 0.1.0: two folders that it wrote, one ended and one stopped after step 16 of 33."""

import json
from pathlib import Path
from shutil import copytree

import pytest
import torch
from torch.testing import assert_close

from resnetlab.core.errors import ConfigError
from resnetlab.core.serialize import as_plain, from_plain, read_record
from resnetlab.records.run import REPORT, ClassificationReport, RunRecord
from resnetlab.report.run.page import read_report
from resnetlab.train.checkpoint import read_checkpoint
from resnetlab.train.recipe import Recipe, read_recipe
from resnetlab.train.run import evaluate_run, run_recipe

OLD = Path(__file__).parent / "version-0.1.0"


def test_recipe_has_no_validation_and_the_words_of_today():
    recipe = read_recipe(OLD / "stopped" / "recipe.yaml")
    assert (recipe.validation, recipe.training.best_by) == (False, "validation_error")
    # One that is written today has the key, and is read as it is.
    assert from_plain(Recipe, as_plain(Recipe()), "recipe.yaml") == Recipe()


def test_record_says_that_test_chose_and_reads_again_as_it_is_written():
    record = read_record(RunRecord, OLD / "ended" / "record.json")
    assert (record.format, record.chosen_by, record.recipe["validation"]) == (2, "test", False)
    old = json.loads((OLD / "ended" / "record.json").read_text())
    assert [as_plain(e.test) for e in record.history] == [e["test"] for e in old["history"]]
    assert record.best.test.error == min(e.test.error for e in record.history)
    assert from_plain(RunRecord, as_plain(record), "it") == record


def test_report_has_its_images_and_is_of_test():
    report = read_report(OLD / "ended")
    old = json.loads((OLD / "ended" / REPORT).read_text())
    assert (report.split, report.format, report.n) == ("test", 2, 360)
    assert [e.image for e in report.most_confident_errors] == [e["picture"] for e in old["wrongest"]]
    assert from_plain(ClassificationReport, as_plain(report), "it") == report


def test_network_evaluates_as_it_did():
    found = evaluate_run(OLD / "ended")
    expected = read_record(RunRecord, OLD / "ended" / "record.json").final.test
    assert found.error == pytest.approx(expected.error, abs=1.5 / 360)
    assert found.loss == pytest.approx(expected.loss, rel=1e-4)


def test_run_that_was_stopped_ends_as_it_would_have_ended(tmp_path):
    """Equal bits are for the processor that wrote the folder; any other rounds a little differently."""
    copytree(OLD / "stopped", tmp_path / "run")
    record = run_recipe(read_recipe(OLD / "stopped" / "recipe.yaml"), tmp_path / "run", resume=True)
    whole = read_record(RunRecord, OLD / "ended" / "record.json")
    ours, theirs = (read_checkpoint(folder / "last") for folder in (tmp_path / "run", OLD / "ended"))
    assert ours.training.keys() == theirs.training.keys()
    for found, expected in ((ours.model, theirs.model), (ours.training, theirs.training)):
        for name, value in found.items():
            assert_close(value, expected[name], rtol=1e-3, atol=1e-4, msg=name)
    assert record.history[0].test == whole.history[0].test
    assert [e.running_loss for e in record.history] == pytest.approx([e.running_loss for e in whole.history], rel=1e-3)
    assert all(torch.equal(v, ours.model[n]) for n, v in read_checkpoint(tmp_path / "run" / "best").model.items())


def test_run_that_test_was_to_end_early_is_refused_with_what_to_do(tmp_path):
    copytree(OLD / "stopped", tmp_path / "run")
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "run" / "recipe.yaml").write_text(text.replace("early_stop: null", "early_stop: 2"))
    recipe = read_recipe(tmp_path / "run" / "recipe.yaml")
    with pytest.raises(ConfigError, match=r"early_stop=2 needs validation images.*without --early-stop"):
        run_recipe(recipe, tmp_path / "run", resume=True)

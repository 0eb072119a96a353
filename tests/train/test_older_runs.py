"""Records and recipes of version 0.1.0, as they are read today; ``contracts/test_old_folders`` finishes its runs."""

import json
from shutil import copytree

import pytest

from resnetlab.core.errors import ConfigError
from resnetlab.core.serialize import as_plain, from_plain, read_record
from resnetlab.records.run import REPORT, ClassificationReport, RunRecord
from resnetlab.report.run.page import read_report
from resnetlab.train.recipe import Recipe, read_recipe
from resnetlab.train.run import run_recipe
from tests.conftest import ROOT

OLD = ROOT / "tests" / "fixtures" / "v0.1.0"


def test_recipe_has_no_validation_and_the_words_of_today():
    recipe = read_recipe(OLD / "stopped" / "recipe.yaml")
    assert (recipe.validation, recipe.training.best_by) == (False, "validation_error")
    # One that is written today has the key, and is read as it is.
    assert from_plain(Recipe, as_plain(Recipe()), "recipe.yaml") == Recipe()


def test_record_says_that_test_chose_and_reads_again_as_it_is_written():
    record = read_record(RunRecord, OLD / "run" / "record.json")
    assert (record.format, record.chosen_by, record.recipe["validation"]) == (4, "test", False)
    old = json.loads((OLD / "run" / "record.json").read_text())
    assert [as_plain(e.test) for e in record.history] == [e["test"] for e in old["history"]]
    assert record.best.test.error == min(e.test.error for e in record.history)
    assert from_plain(RunRecord, as_plain(record), "it") == record


def test_report_has_its_images_and_is_of_test():
    report = read_report(OLD / "run")
    old = json.loads((OLD / "run" / REPORT).read_text())
    assert (report.split, report.format, report.n) == ("test", 2, 360)
    assert [e.image for e in report.most_confident_errors] == [e["picture"] for e in old["wrongest"]]
    assert from_plain(ClassificationReport, as_plain(report), "it") == report


def test_run_that_test_was_to_end_early_is_refused_with_what_to_do(tmp_path):
    copytree(OLD / "stopped", tmp_path / "run")
    text = (tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "run" / "recipe.yaml").write_text(text.replace("early_stop: null", "early_stop: 2"))
    recipe = read_recipe(tmp_path / "run" / "recipe.yaml")
    with pytest.raises(ConfigError, match=r"early_stop=2 needs validation images.*without --early-stop"):
        run_recipe(recipe, tmp_path / "run", resume=True)

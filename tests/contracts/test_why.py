"""docs/why.md says what the records beside it say, and prints what was predicted before each study was run."""

import re
from dataclasses import replace

import pytest

from resnetlab.core.serialize import from_plain, read_record
from resnetlab.records.study import StudyRecord
from resnetlab.report.study.explore import render_explore
from resnetlab.report.study.figures import MANY, draw_figures, row_name
from resnetlab.report.study.prediction import predictor_table
from resnetlab.report.study.tables import error_table, trace_table, verdict_lines
from resnetlab.report.study.tuning import tuning_table
from resnetlab.study.config import load_study
from resnetlab.study.outcomes import Outcomes
from resnetlab.study.prediction import predict_failure
from resnetlab.train.recipe import Recipe, recipe_header
from resnetlab.train.run import run_recipe
from tests.conftest import ROOT
from tests.contracts.test_story import rows_of

RECIPES = {path.stem: path for path in sorted((ROOT / "recipes" / "study" / "why").glob("*.yaml"))}
RECORDS = {path.stem: path for path in sorted((ROOT / "docs" / "why").glob("*.json"))}


def page() -> str:
    return (ROOT / "docs" / "why.md").read_text()


def text() -> str:
    return " ".join(page().split())


def study(name: str) -> StudyRecord:
    return read_record(StudyRecord, RECORDS[name])


def test_every_record_is_that_of_a_recipe():
    assert RECORDS
    assert RECORDS.keys() <= RECIPES.keys()
    for name in RECIPES.keys() - RECORDS.keys():
        assert f"`{name}`" in page(), f"nothing is said of {name}, which was not run"


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_that_of_the_recipe_as_it_stands(name):
    file, found = load_study(RECIPES[name]), study(name)
    assert {axis: tuple(values) for axis, values in found.axes.items()} == dict(file.axes)
    assert len(found.runs) == found.planned
    assert {run.seed for run in found.runs} == set(range(file.recipe.seed, file.recipe.seed + file.seeds))
    assert (found.tuning is not None) == bool(file.tune)
    assert f"resnetlab study recipes/study/why/{name}.yaml" in page()


@pytest.mark.parametrize("name", RECORDS)
def test_prediction_of_the_header_is_printed_word_for_word(name):
    assert recipe_header(RECIPES[name])["predicts"] in text()


@pytest.mark.parametrize("name", RECORDS)
def test_tables_and_verdicts_are_drawn_from_the_record(name):
    found = study(name)
    assert "\n".join(rows_of(error_table(found))) in page()
    for line in verdict_lines(found):
        assert line in page()
    tuning = tuning_table(found)
    if tuning is not None:
        assert "\n".join(rows_of(tuning)) in page()


@pytest.mark.parametrize("name", RECORDS)
def test_figure_is_drawn_from_the_record(name):
    drawing = draw_figures(study(name))[0]
    assert drawing.png == (ROOT / "docs" / "why" / f"{name}.png").read_bytes()
    assert f"(why/{name}.png)" in page()


def test_many_settings_get_a_row_each_instead_of_lines_on_one_another():
    found = study("starts")
    assert draw_figures(found)[0].name == "errors"
    assert len(found.verdicts) > MANY >= len(study("lars").verdicts)
    assert draw_figures(study("lars"))[0].name == "training-error"
    first = found.conditions[0]
    assert row_name(found, first) == "init he, norm batch, depth 20"
    alike = {name.replace("options.init", "training.norm"): values for name, values in found.axes.items()}
    place = {name.replace("options.init", "training.norm"): value for name, value in first.values.items()}
    told = row_name(replace(found, axes=alike), replace(first, values=place))
    assert told == "training.norm he, options.norm batch, depth 20"


def test_page_to_look_at_is_drawn_from_the_record():
    told = re.findall(r"\(why/([\w-]+)\.html\)", page())
    assert told
    for name in told:
        assert (ROOT / "docs" / "why" / f"{name}.html").read_text() == render_explore(study(name))


def test_what_was_traced_is_drawn_from_the_records():
    told = re.findall(r"<!-- (\w+) of ([\w-]+) -->", page())
    assert {quantity for quantity, _ in told} == {"correlation", "growth", "largest_change"}
    for quantity, name in told:
        assert "\n".join(rows_of(trace_table(study(name), quantity))) in page()


def test_what_foretells_failure_is_drawn_from_all_records():
    found = predict_failure([study(name) for name in RECORDS])
    assert "\n".join(rows_of(predictor_table(found))) in page()


@pytest.mark.parametrize("name", RECORDS)
def test_minutes_are_those_of_the_record(name):
    minutes = sum(run.record.seconds for run in study(name).runs) / 60
    assert f"{minutes:.0f} minutes" in page()


@pytest.mark.long
@pytest.mark.parametrize("name", RECORDS)
def test_a_tenth_of_the_runs_comes_out_again(name, tmp_path):
    """To the bit on a processor of the same kind; on another one at least whether it trains, where all seeds agree."""
    found = study(name)
    outcomes = Outcomes(found.runs)
    for number, run in enumerate(found.runs[::10]):
        again = run_recipe(from_plain(Recipe, run.record.recipe, name), tmp_path / str(number), page=False)
        if again.environment["processor"] == run.record.environment["processor"]:
            ours, theirs = again.final, run.record.final
            assert (ours and (ours.trained, ours.reported)) == (theirs and (theirs.trained, theirs.reported))
        elif not outcomes.is_mixed(run.values):
            trained = again.final is not None and again.final.trained.error < found.trained_below
            assert trained == outcomes.trained(run.values)[run.seed]

"""A tuned study: what is tried, which seeds choose, and the same record for any workers and interruptions."""

import json
import shlex
from dataclasses import replace
from math import log10

import pytest

from resnetlab.cli.study import StudyCommand, report_study
from resnetlab.core.errors import ConfigError, DataError
from resnetlab.core.serialize import as_plain, write_record
from resnetlab.data.config import AugmentConfig
from resnetlab.records.study import Band, StudyRun
from resnetlab.report.study.page import write_report
from resnetlab.report.study.tuning import edge_lines, tuning_table
from resnetlab.study import NoStudyCallback, Study, plan_runs, read_results, read_study, run_study, runner
from resnetlab.study.config import TUNING_SEEDS, study_command, study_recipe, study_settings
from resnetlab.study.diagnosis import choose
from resnetlab.study.plan import plan_tuning
from resnetlab.study.tuning import make_tuning, planned_runs
from resnetlab.train.config import TrainConfig
from resnetlab.train.folder import RECORD
from tests.made import make_run, run_record
from tests.study.conftest import timeless

SHORT = TrainConfig(epochs=1, max_steps=2, batch_size=128, device="cpu", augment=AugmentConfig(crop_padding=0))
STUDY = Study(
    recipe=replace(study_recipe(), model="mlp_resnet8", training=SHORT),
    axes={"shortcut": ("none", "default"), "depth": ("4",)},
    seeds=3,
    tune={"training.lr": ("0.01", "0.1", "1.0")},
    tune_seeds=2,
)
PLACES = ({"shortcut": "none", "depth": "4"}, {"shortcut": "default", "depth": "4"})


def error_of(recipe) -> float | None:
    """Plain nets like 0.01 in the seeds that tune and 0.1 in those that judge; residual ones 1.0, and 0.01 diverges."""
    tunes, rate = recipe.seed >= TUNING_SEEDS, recipe.training.lr
    if recipe.shortcut == "none":
        return 0.02 if (rate == 0.01) == tunes else 0.5
    return {0.01: None, 0.1: 0.03, 1.0: 0.01}[rate]


class Phases(NoStudyCallback):
    """Notes the runs of each phase, and stops when as many phases as said have been planned."""

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at = stop_at
        self.planned: list[list[str]] = []
        self.begun: list[str] = []

    def on_plan(self, planned, ended):
        self.planned.append([run.name for run in planned])
        if len(self.planned) == self.stop_at:
            raise KeyboardInterrupt

    def on_run_start(self, run, number, total):
        self.begun.append(run.name)
        return super().on_run_start(run, number, total)


@pytest.fixture
def made(monkeypatch):
    """Runs that take no time, with errors by ``error_of``."""

    def run_recipe(recipe, folder, **_):
        record = replace(run_record(error_of(recipe)), recipe=as_plain(recipe), model=recipe.model)
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder / RECORD, record)
        return record

    monkeypatch.setattr(runner, "run_recipe", run_recipe)


def test_each_condition_is_judged_at_its_best_value_by_seeds_that_did_not_choose_it(tmp_path, made):
    seen = Phases()
    study = run_study(STUDY, tmp_path, seen)
    assert [len(names) for names in seen.planned] == [2 * 3 * 2, 2 * 3]
    assert seen.begun == [*seen.planned[0], *seen.planned[1]]
    tuning = study.tuning
    # The seeds that judge would have chosen 0.1 for the plain net.
    assert [one.chosen for one in tuning.conditions] == ["0.01", "1.0"]
    assert {(run.values["shortcut"], run.record.recipe["training"]["lr"]) for run in study.runs} == {
        ("none", 0.01),
        ("default", 1.0),
    }
    assert (sorted({run.seed for run in study.runs}), tuning.seeds) == ([0, 1, 2], [10_000, 10_001])
    assert study.planned == len(study.runs) == 6
    plain, residual = study.conditions
    assert (plain.values, plain.train_error.n, plain.train_error.mean) == (PLACES[0], 3, 0.5)
    assert residual.train_error.mean == 0.01
    assert all("training.lr" not in run.values for run in study.runs)
    assert [contrast.axis for contrast in study.contrasts] == ["shortcut"]
    assert read_results(tmp_path / "results.json") == study == read_study(tmp_path)
    assert json.loads((tmp_path / "tuning.json").read_text()) == as_plain(tuning)


def test_record_keeps_what_was_tried(tmp_path, made):
    plain, residual = run_study(STUDY, tmp_path).tuning.conditions
    # The best tuning run has 1 %: one trained below 11 %.
    assert [(t.value, t.n, t.diverged, t.trained, t.train_error) for t in plain.tried] == [
        ("0.01", 2, 0, 2, 0.02),
        ("0.1", 2, 0, 0, 0.5),
        ("1.0", 2, 0, 0, 0.5),
    ]
    assert [(t.n, t.diverged, t.trained, t.train_error) for t in residual.tried] == [
        (2, 2, 0, 1.0),
        (2, 0, 2, 0.03),
        (2, 0, 2, 0.01),
    ]
    assert plain.band == Band(low="0.01", high="0.01", decades=0.0, open_below=True, open_above=False)
    assert residual.band == Band(low="0.1", high="1.0", decades=1.0, open_below=False, open_above=True)
    assert (plain.edge, residual.edge) == ("lowest", "highest")


GRID = ("0.001", "0.01", "0.1", "0.3", "1")


def tuned(*errors: tuple[float | None, ...]):
    """What is chosen of these errors, those of each value of the grid in turn."""
    study = replace(STUDY, axes={"depth": ("4",)}, tune={"training.lr": GRID}, tune_seeds=len(errors[0]))
    runs: list[StudyRun] = [
        make_run({"depth": "4", "training.lr": value}, 10_000 + seed, run_record(error))
        for value, of_value in zip(GRID, errors, strict=True)
        for seed, error in enumerate(of_value)
    ]
    (found,) = make_tuning(runs, study).conditions
    return found


def test_of_equal_values_the_smaller_is_chosen():
    found = tuned((0.5, 0.5), (0.1, 0.2), (0.2, 0.1), (0.1, 0.2), (0.5, 0.5))
    assert (found.chosen, found.edge) == ("0.01", "")


def test_run_that_diverged_counts_as_all_wrong():
    """The mean over the others alone would choose 0.1, of which one run in two is lost."""
    found = tuned((0.4, 0.4), (0.3, 0.3), (0.0, None), (0.6, 0.6), (0.6, 0.6))
    assert (found.chosen, [t.train_error for t in found.tried][2], found.tried[2].diverged) == ("0.01", 0.5, 1)


def test_band_is_what_trains_around_the_best_in_every_run():
    whole = tuned((0.5, 0.5), (0.05, 0.05), (0.01, 0.01), (0.05, 0.05), (0.5, 0.5)).band
    assert (whole.low, whole.high, whole.open_below, whole.open_above) == ("0.01", "0.3", False, False)
    assert whole.decades == pytest.approx(log10(30))
    apart = tuned((0.05, 0.05), (0.05, 0.5), (0.01, 0.01), (0.01, 0.02), (0.01, 0.02)).band
    assert (apart.low, apart.high, apart.open_below, apart.open_above) == ("0.1", "1", False, True)
    one = tuned((0.5, 0.5), (None, 0.05), (0.01, 0.01), (0.3, 0.3), (0.01, 0.5)).band
    assert (one.low, one.high, one.decades) == ("0.1", "0.1", 0)
    assert tuned((0.5, 0.5), (0.5, 0.5), (0.01, 0.4), (0.5, 0.5), (0.5, 0.5)).band is None


def test_table_and_page_say_what_was_chosen_and_where_the_grid_ends(tmp_path, made, capsys):
    study = run_study(STUDY, tmp_path)
    table = tuning_table(study)
    assert table.heads == ("depth", "kind", "value chosen", "band", "decades", "0.01", "0.1", "1.0")
    assert table.rows[0] == (
        *("4", "plain", "0.01", "≤ 0.01 to 0.01", "≥ 0.0"),
        *("2.00 (2/2)", "50.00 (0/2)", "50.00 (0/2)"),
    )
    assert table.rows[1][2:6] == ("1.0", "0.1 to ≥ 1.0", "≥ 1.0", "100.00 (0/2, 2 diverged)")
    low, high = edge_lines(study)
    assert "kind plain, depth 4: the best training.lr, 0.01, is the lowest value tried" in low
    assert "widen --tune downwards" in low
    assert "widen --tune upwards" in high
    page = write_report(study, tmp_path).read_text()
    assert '<h2 id="tuning">' in page
    assert "value chosen" in page
    assert high in page
    report_study(tmp_path)
    printed = capsys.readouterr().out
    assert low in printed
    assert "0.1 to ≥ 1.0" in printed
    assert "training.lr" in next(line for line in printed.splitlines() if line.startswith("depth"))


def test_folder_says_that_it_is_tuning(tmp_path, made):
    with pytest.raises(KeyboardInterrupt):
        run_study(STUDY, tmp_path, Phases(stop_at=2))
    assert (tmp_path / "tuning.json").is_file()
    with pytest.raises(DataError, match="no run of the study"):
        read_study(tmp_path)
    assert len(choose(planned_runs(STUDY, tmp_path), {"kind": [], "depth": []}, {}, tmp_path)) == 6
    (plan_tuning(STUDY)[3].folder(tmp_path) / RECORD).unlink()
    with pytest.raises(DataError, match="still tuning: 11 of 12 tuning runs have ended"):
        read_study(tmp_path)


def test_more_seeds_add_runs_that_judge_and_other_values_are_another_study(tmp_path, made):
    run_study(STUDY, tmp_path)
    seen = Phases()
    assert len(run_study(replace(STUDY, seeds=4), tmp_path, seen).runs) == 8
    assert seen.begun == ["plain-4-seed3", "residual-4-seed3"]
    for other in ({"tune_seeds": 3}, {"tune": {"training.lr": ("0.01", "0.1")}}, {"tune": {}, "tune_seeds": 2}):
        with pytest.raises(ConfigError, match="tune"):
            run_study(replace(STUDY, seeds=4, **other), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"training.lr": ("0.1",)}}, "two rising numbers"),
        ({"tune": {"training.lr": ("0.1", "0.01")}}, "two rising numbers"),
        ({"tune": {"training.lr": ("0.1", "fast")}}, "two rising numbers"),
        ({"tune": {"training.lr": ("0", "0.1")}}, "two rising numbers"),
        ({"tune": {"training.lr": ("0.1", ".inf")}}, "two rising numbers"),
        ({"tune": {"training.rl": ("0.1", "1")}}, r"training\.lr"),
        ({"tune": {"depth": ("4", "8")}}, "no axis of the study"),
        ({"tune": {"training.lr": ("0.1", "1"), "training.weight_decay": ("0.1", "1")}}, "one setting"),
        ({"tune_seeds": 0}, "from 1 to 1000"),
        ({"tune": {}, "tune_seeds": 3}, "given with tune"),
        ({"tune_seeds": 1000, "seeds": 1000, "axes": {"depth": ("4", "8", "12", "16")}}, "at most 10000 runs"),
    ],
    ids=str,
)
def test_what_cannot_be_tuned_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(STUDY, **changes)


def test_value_that_makes_no_run_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"no run at shortcut=none, depth=4, training\.momentum=1\.5"):
        run_study(replace(STUDY, tune={"training.momentum": ("0.5", "1.5")}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="chosen"):
        plan_runs(STUDY)


def test_flags_and_files_give_the_same_study_as_its_command(tmp_path):
    words = shlex.split(study_command(STUDY))[2:]
    assert StudyCommand.read(words, "resnetlab study").config == STUDY
    (tmp_path / "tuned.yaml").write_text(
        "model: mlp_resnet8\naxes: {depth: [4, 8]}\nseeds: 2\ntune: {training.lr: [0.1, 0.01]}\ntune_seeds: 4\n"
    )
    study = StudyCommand.read([str(tmp_path / "tuned.yaml")], "resnetlab study").config
    assert (study.tune, study.tune_seeds, study.seeds) == ({"training.lr": ("0.01", "0.1")}, 4, 2)
    flags = ["--tune", "training.lr=1,0.3", "--tune-seeds", "1"]
    changed = StudyCommand.read([str(tmp_path / "tuned.yaml"), *flags], "resnetlab study").config
    assert (changed.tune, changed.tune_seeds) == ({"training.lr": ("0.3", "1")}, 1)
    with pytest.raises(ConfigError, match=r"--tune 'training\.lr' is not possible"):
        _ = StudyCommand.read(["--tune", "training.lr"], "resnetlab study").config
    (tmp_path / "tuned.yaml").write_text("tune: 3\n")
    with pytest.raises(ConfigError, match="must hold lists"):
        StudyCommand.read([str(tmp_path / "tuned.yaml")], "resnetlab study")


def test_settings_of_a_study_that_tunes_nothing_are_what_they_were():
    assert list(study_settings(Study())) == ["format", "recipe", "axes", "seeds"]


def test_stop_between_the_phases_and_two_workers_give_the_same_record(tmp_path):
    """Trained for real, two steps each."""
    small = replace(STUDY, axes={"shortcut": ("none", "default")}, seeds=2, tune_seeds=1)
    with pytest.raises(KeyboardInterrupt):
        run_study(small, tmp_path / "one", Phases(stop_at=2))
    seen = Phases()
    run_study(small, tmp_path / "one", seen)
    assert (seen.begun, len(seen.planned[1])) == (seen.planned[1], 4)
    run_study(small, tmp_path / "two", workers=2)
    assert timeless(tmp_path / "one") == timeless(tmp_path / "two")
    assert (tmp_path / "one/tuning.json").read_bytes() == (tmp_path / "two/tuning.json").read_bytes()

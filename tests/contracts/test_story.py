"""docs/study.md says what the records beside it say; no number in its tables is typed by hand."""

from statistics import median

import pytest

from resnetlab.core.serialize import read_record
from resnetlab.records.diagnosis import Diagnosis
from resnetlab.records.gradients import ORDERS, BlockGradient
from resnetlab.records.study import KINDS, StudyRecord
from resnetlab.records.study_diagnosis import StudyDiagnosis
from resnetlab.report.study.diagnosis import difference_tables, draw_study_diagnosis, measure_tables
from resnetlab.report.study.figures import draw_figures
from resnetlab.report.study.tables import contrast_tables, error_table, gradient_table, trace_table, verdict_lines
from resnetlab.report.table import Table, percent
from tests.conftest import ROOT

RECORDS = ROOT / "docs" / "study"
STUDIES = ("digits", "fashion-mnist")


def story() -> str:
    return (ROOT / "docs" / "study.md").read_text()


def study(name: str) -> StudyRecord:
    return read_record(StudyRecord, RECORDS / f"{name}.json")


def read(name: str) -> StudyDiagnosis:
    return read_record(StudyDiagnosis, RECORDS / f"{name}-read.json")


def rows_of(table: Table) -> list[str]:
    """The table in Markdown."""
    lines = [table.heads, ("---",) * len(table.heads), *table.rows]
    return [f"| {' | '.join(line)} |".replace("| --- ", "|---").replace("|--- |", "|---|") for line in lines]


def weight_table(found: StudyRecord) -> Table:
    """‖W‖ of the first block before and after training, where plain nets degrade."""
    rows: list[tuple[str, ...]] = []
    for depth in ("56", "110"):
        for shortcut, kind in KINDS.items():
            records = [run.record for run in found.runs if run.values == {"shortcut": shortcut, "depth": depth}]
            moments = [[norm_of(record.gradients_start) for record in records]]
            moments.append([norm_of(record.gradients_end) for record in records])
            rows.append((depth, kind, str(len(records)), *map(spread, moments)))
    return Table(caption="", heads=("depth", "kind", "n", "‖W‖ before training", "after training"), rows=rows)


def norm_of(gradients: list[BlockGradient]) -> float:
    return next(gradient.weight_norm for gradient in gradients if gradient.block == "stages.0.0")


def spread(values: list[float]) -> str:
    shown = [
        f"{value:,.0f}" if value >= 100 else f"{value:.1f}" for value in (median(values), min(values), max(values))
    ]
    return "{} ({} to {})".format(*shown)


@pytest.mark.parametrize("name", STUDIES)
def test_tables_of_a_study_are_drawn_from_its_record(name):
    found = study(name)
    for table in (error_table(found), *contrast_tables(found), gradient_table(found), weight_table(found)):
        assert "\n".join(rows_of(table)) in story()
    for line in verdict_lines(found):
        assert line in story()
    assert len({run.seed for run in found.runs}) >= 3
    assert {"8", "110"} <= {run.values["depth"] for run in found.runs}


def test_slower_rate_is_drawn_from_its_record():
    found = study("digits-slow")
    assert found.command.replace("--out STUDY", "--out runs/digits-slow") in story()
    assert "\n".join(rows_of(error_table(found))) in story()


def test_deeper_net_is_told_of_by_its_record():
    found = read_record(Diagnosis, RECORDS / "deeper.json")
    assert found.net.identity.equal
    for line in found.findings[0].sentences:
        assert line in story()


def test_what_the_text_says_of_all_runs_holds():
    """Bounds and orders that stand in sentences."""
    for name in STUDIES:
        for run in study(name).runs:
            if run.values["depth"] == "110":
                low, high = (6.0, 7.5) if run.values["shortcut"] == "none" else (-2.0, 2.0)
                assert low < run.flow_start.growth < high
            if (name, run.values) == ("digits", {"shortcut": "none", "depth": "110"}):
                before, after = run.record.gradient_trace[:2]
                assert (before.step, after.step) == (0, 1)
                assert 2e5 < before.first < 6e5
                assert after.first < 1e-3
        for cell in read(name).conditions:
            if cell.values["kind"] == "residual":
                (plain,) = (c for c in read(name).conditions if c.values == {**cell.values, "kind": "plain"})
                assert cell.measures["response"].mean < plain.measures["response"].mean
        for run in read(name).runs:
            worst = max(run.net.lesion.dropped, key=lambda change: change.error)
            assert run.values["kind"] == "plain" or worst.blocks == ["stages.0.0"]


def test_counts_that_stand_in_the_text_are_those_of_the_records():
    """How many nets trained, over both data sets; what is significant where; and the verdict on residual nets."""
    text = " ".join(story().split())
    both = [one for name in STUDIES for one in study(name).conditions]
    trained = {
        (depth, shortcut): [one.trained for one in both if one.values == {"shortcut": shortcut, "depth": depth}]
        for depth in ("8", "20", "56", "110")
        for shortcut in KINDS
    }
    sums = {place: (sum(s.count for s in shares), sum(s.n for s in shares)) for place, shares in trained.items()}
    assert {count == n for (depth, _), (count, n) in sums.items() if depth in ("8", "20")} == {True}
    told = ["{} of {}".format(*sums[depth, kind]) for depth in ("56", "110") for kind in ("none", "default")]
    assert f"At 56 layers {told[0]} plain nets did and {told[1]} residual ones" in text
    assert f"At 110 layers {told[2]} plain nets did" in text
    assert f"and {told[3]} residual ones" in text
    assert all(one.untrained == (one.values == {"shortcut": "none", "depth": "110"}) for one in both)
    significant = {
        (name, contrast.others["depth"], quantity)
        for name in STUDIES
        for contrast in study(name).contrasts
        for quantity in ("train_error", "test_error", "train_loss")
        if getattr(contrast, quantity).significant
    }
    quantities = ("train_error", "test_error", "train_loss")
    at = [("digits", "56"), ("fashion-mnist", "56"), ("fashion-mnist", "110")]
    assert significant == {(*place, q) for place in at for q in quantities} | {("digits", "20", "train_loss")}
    (residual,) = (v for v in study("digits").verdicts if v.values["shortcut"] == "default")
    (deep,) = (c for c in study("digits").conditions if c.values == {"shortcut": "default", "depth": "110"})
    assert residual.answer == "undecided"
    assert f"trained with {deep.trained.count} of {deep.trained.n} seeds" in text
    assert f"its training error is {percent(deep.train_error)} %" in text


def test_what_the_text_says_of_56_layers_holds():
    """The growth after one step and after four, and blocks that are nearer to the identity than those of 20 layers."""
    deep = [r for r in study("digits").runs if r.values == {"shortcut": "none", "depth": "56"}]
    growth = {
        n: median(moment.growth for run in deep for moment in run.record.gradient_trace if moment.step == n)
        for n in (1, 2, 4)
    }
    assert f"still {growth[1]:.1f} orders of magnitude after one step" in " ".join(story().split())
    assert growth[4] < ORDERS < growth[2]
    for name in STUDIES:
        shallow, deeper = (
            next(c.measures for c in read(name).conditions if c.values == {"kind": "residual", "depth": depth})
            for depth in ("20", "56")
        )
        assert deeper["ratio"].mean < shallow["ratio"].mean
        assert deeper["cosine"].mean > shallow["cosine"].mean


def test_trace_is_drawn_from_its_record():
    assert "\n".join(rows_of(trace_table(study("digits")))) in story()


@pytest.mark.parametrize("name", STUDIES)
def test_tables_of_a_diagnosis_are_drawn_from_its_record(name):
    found = read(name)
    _, residuals, lesions = measure_tables(found)
    for table in (residuals, lesions):
        assert "\n".join(rows_of(table)) in story()
    (differences,) = difference_tables(found)
    told = [row for row in differences.rows if row[0] in ("responses", "one left out, median")]
    assert told
    for row in told:
        assert f"| {' | '.join(row)} |" in story()


def minutes(found: StudyRecord) -> str:
    return f"{sum(run.record.seconds for run in found.runs) / 60:.0f} minutes"


@pytest.mark.parametrize("name", STUDIES)
def test_times_are_those_of_the_records(name):
    assert minutes(study(name)) in story()


@pytest.mark.parametrize("name", STUDIES)
def test_commands_are_those_of_the_records(name):
    command = study(name).command.replace("--out STUDY", f"--out runs/{name}")
    assert command in story()
    assert read(name).study == study(name).command


@pytest.mark.parametrize("name", STUDIES)
def test_images_are_drawn_from_the_records(name):
    drawn = {"training-error": draw_figures(study(name)), "lesion": draw_study_diagnosis(read(name))}
    for wanted, drawings in drawn.items():
        image = next(drawing.png for drawing in drawings if drawing.name == wanted)
        assert image == (RECORDS / f"{name}-{wanted}.png").read_bytes()
        assert f"study/{name}-{wanted}.png" in story()

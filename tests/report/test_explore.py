"""The page of two conditions side by side: its data against the record by hand, its size, its policy, its names."""

import json
import re
from base64 import b64encode
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import product

import pytest

from resnetlab.records.gradients import BlockGradient, GradientMoment
from resnetlab.records.study import StudyRecord
from resnetlab.report.study.explore import EXPLORE, POINTS, charts_of, explore_data, render_explore, write_explore
from resnetlab.study import read_results
from tests.conftest import ROOT
from tests.made import HOSTILE, axis_study, depth_study, study_of
from tests.report.test_study_page import Elements


@dataclass(frozen=True, kw_only=True)
class Traced(GradientMoment):
    """A moment with more than every record has."""

    correlation: float | None = None
    made_up: float | None = None


def data_of(page: str) -> dict:
    (held,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', page, re.DOTALL)
    return json.loads(held)


def hashes(page: str, tag: str) -> list[str]:
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    return [f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts]


def changed(study: StudyRecord, **given) -> StudyRecord:
    """The study with these fields in the record of every run."""
    return replace(study, runs=[replace(run, record=replace(run.record, **given)) for run in study.runs])


@pytest.fixture(scope="module")
def demo() -> StudyRecord:
    return read_results(ROOT / "docs" / "demo" / "results.json")


def test_data_are_those_of_the_record(demo):
    data = data_of(render_explore(demo))
    assert data == explore_data(demo, charts_of(demo))
    assert data["axes"] == [
        {"name": "shortcut", "values": ["none", "default"], "word": "kind", "words": ["plain", "residual"]},
        {"name": "depth", "values": ["8", "20", "56"], "word": "depth", "words": ["8", "20", "56"]},
    ]
    assert (data["view"], data["compared"], data["along"]) == ([[0, 2], [1, 2]], 0, 1)
    for condition, shown in zip(demo.conditions, data["conditions"], strict=True):
        assert [axis["values"][k] for axis, k in zip(data["axes"], shown["place"], strict=True)] == list(
            condition.values.values()
        )
        assert shown["trained"] == vars(condition.trained)
        runs = [run for run in demo.runs if run.values == condition.values]
        for run, kept in zip(runs, shown["runs"], strict=True):
            history, trace, final = run.record.history, run.record.gradient_trace, run.record.final
            assert kept["seed"] == run.seed
            assert kept["train"] == pytest.approx(100 * final.train.error, rel=1e-5)
            assert kept["test"] == pytest.approx(100 * final.test.error, rel=1e-5)
            assert kept["loss"] == pytest.approx(final.train.loss, rel=1e-5)
            assert kept["growth"] == close([run.flow_start.growth, run.flow_end.growth])
            assert shown["epochs"] == [epoch.epoch for epoch in history] == list(range(1, 9))
            assert kept["epochs"]["error"] == close([100 * epoch.running_error for epoch in history])
            assert kept["epochs"]["loss"] == close([epoch.running_loss for epoch in history])
            assert shown["steps"] == [moment.step for moment in trace]
            for name in ("first", "last", "growth"):
                assert kept["steps"][name] == close([getattr(moment, name) for moment in trace])
            assert shown["names"] == [gradient.block for gradient in run.record.gradients_start]
            assert kept["blocks"]["start"] == close(
                [g.gradient_norm / g.weight_norm for g in run.record.gradients_start]
            )
            assert kept["blocks"]["end"] == close([g.gradient_norm / g.weight_norm for g in run.record.gradients_end])


def close(values):
    """Equal but for the fourth significant digit."""
    return pytest.approx(values, rel=5.1e-3)


def test_charts_are_those_that_some_run_has_a_number_for(demo):
    assert [chart.name for chart in charts_of(demo)] == ["error", "loss", "blocks", "ends", "growth"]
    assert [chart.name for chart in charts_of(depth_study())] == ["error", "loss", "blocks"]
    assert '<h2 id="share">' in render_explore(demo)
    uncounted = replace(demo, conditions=[replace(one, trained=None) for one in demo.conditions])
    assert '<h2 id="share">' not in render_explore(uncounted)


def test_whatever_else_is_traced_is_drawn_by_its_name():
    moments = [
        Traced(step=0, first=1.0, last=2.0, growth=None, correlation=0.51234, made_up=None),
        Traced(step=1, first=None, last=float("inf"), growth=None, correlation=0.25, made_up=7.0),
    ]
    study = changed(depth_study(), gradient_trace=moments)
    charts = {chart.name: chart for chart in charts_of(study)}
    assert list(charts) == ["error", "loss", "blocks", "ends", "correlation", "made_up"]
    assert (charts["made_up"].title, charts["made_up"].said) == ("Made up", "made up over the steps.")
    (first, *_) = explore_data(study, list(charts.values()))["conditions"]
    assert first["steps"] == [0, 1]
    assert first["runs"][0]["steps"] == {
        "first": [1, None],
        "last": [2, None],
        "correlation": [0.512, 0.25],
        "made_up": [None, 7],
    }
    assert 'id="made_up-table"' in render_explore(study)


def test_diverged_runs_and_records_without_running_error_have_gaps():
    study = axis_study()
    lost, made = (explore_data(study, charts_of(study))["conditions"][place] for place in (-1, 0))
    assert lost["place"] == [4]
    assert lost["trained"]["count"] == 0
    assert [run["train"] for run in lost["runs"]] == [None] * 3
    assert (lost["epochs"], lost["runs"][0]["epochs"]["error"]) == ([], [])
    assert made["runs"][1]["epochs"]["error"] == [90, 51]
    assert "in eval mode, by epoch" in render_explore(study)
    assert made["runs"][0]["blocks"]["start"] == [1, 0.5, 0.25, 0.125]
    half = changed(study, gradients_end=[BlockGradient(block="stages.0.1", gradient_norm=None, weight_norm=1.0)])
    assert explore_data(half, charts_of(half))["conditions"][0]["runs"][0]["blocks"]["end"] == [None] * 4


@pytest.mark.parametrize(
    ("axes", "view", "compared", "along"),
    [
        ({"shortcut": "A none B", "depth": "20 110 56"}, [[1, 1], [0, 1]], "shortcut", "depth"),
        ({"options.norm": "batch", "training.lr": "0.1 0.2"}, [[0, 0], [0, 1]], "training.lr", "training.lr"),
        ({"depth": "8 20"}, [[0], [1]], "depth", "depth"),
        ({"shortcut": "none", "depth": "8"}, [[0, 0], [0, 0]], "shortcut", "depth"),
    ],
    ids=str,
)
def test_first_view_compares_the_shortcut_or_the_first_axis_of_several_values(axes, view, compared, along):
    places = product(*(values.split() for values in axes.values()))
    data = explore_data(study_of(tuple(axes), {place: [0.1] for place in places}), [])
    assert data["view"] == view
    names = list(axes)
    assert (names[data["compared"]], names[data["along"]]) == (compared, along)


def test_first_view_of_a_study_that_goes_on_has_runs():
    study = study_of(("shortcut", "depth"), {("none", "8"): [0.1], ("default", "8"): [0.1], ("none", "56"): [0.1]})
    assert explore_data(study, [])["view"] == [[0, 1], [0, 1]]
    assert explore_data(replace(study, conditions=study.conditions[:2]), [])["view"] == [[0, 0], [1, 0]]
    assert "3 of 12 runs have ended" in render_explore(study)


def long_study(runs: int, epochs: int, blocks: int) -> StudyRecord:
    """A study with numbers of as many digits as they may have."""
    seeds, odd = 5, 0.0123456789
    errors = {(f"{place}",): [odd] * seeds for place in range(runs // seeds)}
    study = study_of(("training.lr",), errors)
    (first, *_) = study.runs
    (_, last) = first.record.history
    return changed(
        study,
        history=[replace(last, epoch=k + 1, running_error=odd, running_loss=odd / 100) for k in range(epochs)],
        gradients_start=[
            BlockGradient(block=f"stages.{k // 300}.{k % 300}", gradient_norm=odd / 1e6, weight_norm=1.0)
            for k in range(blocks)
        ],
        gradients_end=[
            BlockGradient(block=f"stages.{k // 300}.{k % 300}", gradient_norm=odd, weight_norm=1.0)
            for k in range(blocks)
        ],
        gradient_trace=[
            Traced(step=step, first=-odd, last=-odd, growth=-odd, correlation=-odd, made_up=-odd / 1e6)
            for step in (0, *(2**k for k in range(16)))
        ],
    )


def test_page_of_four_hundred_long_deep_runs_is_below_three_megabytes():
    study = long_study(400, 216, 600)
    page = render_explore(study)
    assert len(page.encode()) < 3_000_000
    assert f"{POINTS} points are shown" in page
    condition = data_of(page)["conditions"][0]
    for name, last in (("epochs", 216), ("blocks", 599)):
        assert len(condition[name]) == POINTS
        assert condition[name][-1] == last
    assert (condition["epochs"][0], condition["blocks"][0]) == (1, 0)
    assert condition["names"][-1] == "stages.1.299"
    assert "points are shown" not in render_explore(depth_study())


def test_policy_names_the_style_and_the_program_and_lets_nothing_be_asked(demo):
    page = render_explore(demo)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (style,), (script,) = hashes(page, "style"), hashes(page, "script")
    assert dict(rule.split(" ", 1) for rule in policy.split("; ")) == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": style,
        "script-src": script,
        "connect-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert Elements(page).fetched == ["report.html"], "a link"
    assert not re.search(r"""url\(|@import|\son\w+=|\sstyle=|(src|fetch|import)\(""", page)
    # The one address is the name of SVG's elements.
    assert set(re.findall(r"\w+://[^\s\"'<]+", page)) <= {"http://www.w3.org/2000/svg"}


def test_names_are_text_in_the_data_and_shortened_there():
    page = render_explore(axis_study(HOSTILE))
    assert "<script>alert" not in page
    (axis,) = data_of(page)["axes"]
    assert axis["values"][0] == axis["words"][0] == HOSTILE
    assert axis["word"] == f"axis {HOSTILE}"
    (held,) = re.findall(r'id="study">(.*?)</script>', page, re.DOTALL)
    assert "<" not in held
    (axis,) = data_of(render_explore(axis_study("W" * 4000)))["axes"]
    assert len(axis["words"][0]) == 60
    assert "W" * 4000 in render_explore(axis_study("W" * 4000)), "whole where it is chosen"


def test_every_control_has_a_label_and_every_id_is_distinct(demo):
    page = render_explore(demo)
    elements = Elements(page)
    assert len(elements.ids) == len(set(elements.ids))
    assert re.findall(r'<select id="([^"]+)"', page) == re.findall(r'<label[^>]* for="([^"]+)"', page)
    assert elements.tags["select"] == 2 * 2 + 1


def test_page_is_written_equal_again(demo, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert write_explore(demo, tmp_path / name) == tmp_path / name / EXPLORE
    assert (tmp_path / "one" / EXPLORE).read_bytes() == (tmp_path / "two" / EXPLORE).read_bytes()

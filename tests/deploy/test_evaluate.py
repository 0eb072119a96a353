"""``resnetlab evaluate``: the run's own images as ever, and any other set with its classes."""

import csv
import json
from pathlib import Path

import pytest

import resnetlab
from resnetlab.deploy.engines import open_predictor
from resnetlab.deploy.evaluate import Answered, answers_on, evaluate_answers
from resnetlab.deploy.preprocessing import Prediction
from resnetlab.deploy.rows import NO_ANSWER, Row
from tests.deploy.conftest import add_colours


def answered(*pairs: tuple[int, tuple[float, ...]]) -> Answered:
    """Answers on three classes: the true one, and the probability of each."""
    rows = []
    for true, shares in pairs:
        order = sorted(range(3), key=lambda k: -shares[k]) if shares else []
        found = Prediction(tuple("abc"[k] for k in order), tuple(shares[k] for k in order))
        rows.append((Row("x", found, None if shares else NO_ANSWER), true))
    return Answered(source="made", split="test", classes=("a", "b", "c"), rows=iter(rows))


def test_figures_of_a_case_solved_by_hand():
    found = evaluate_answers(
        answered((0, (0.5, 0.3, 0.2)), (0, (0.25, 0.5, 0.25)), (1, (0.2, 0.5, 0.3)), (1, ())),
    )
    assert (found.n, found.unanswered, found.unreadable, found.missing) == (4, 1, 0, ["c"])
    assert found.accuracy == 0.5
    assert found.confusion == [(0, 0, 1), (0, 1, 1), (1, 1, 1)]
    assert [(s.n, s.recall, s.precision) for s in found.scores] == [(2, 0.5, 1.0), (2, 0.5, 0.5), (0, None, None)]
    assert found.loss == pytest.approx((0.693147 + 1.386294 + 0.693147) / 3, abs=1e-5)
    assert found.calibration_error == pytest.approx(abs(2 / 3 - 0.5))


def test_wilson_interval_is_newcombes():
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, Statistics in Medicine 17:857, table I, method 3)."""
    found = evaluate_answers(answered(*[(0, (0.9, 0.1, 0.0))] * 81, *[(1, (0.9, 0.1, 0.0))] * 182))
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)


@pytest.fixture
def other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return add_colours(Path("other"), names=("red", "blue"), count=7, seed=5)


def test_the_own_images_are_one_line_as_ever(run, colour_run):
    code, out, errors = run("evaluate", colour_run)
    assert (code, errors, len(out.splitlines())) == (0, "", 1)
    assert out.startswith("test loss ")
    assert run("evaluate", colour_run, "--data", colour_run.parent / "set") == (0, out, "")
    code, more, _ = run("evaluate", colour_run, "--split", "test")
    first, again = out.split(), more.splitlines()[0].split()
    assert first[:5] == again[:5]
    assert first[-2:] == again[-2:]


def test_another_folder_is_evaluated_as_a_whole(run, colour_run, other):
    (other / "red" / "bad.png").write_bytes(b"no image")
    code, out, errors = run("evaluate", colour_run, "--data", other, "--out", "rows.csv")
    assert code == 0
    assert "evaluated as another set" in errors
    assert "n 14" in out.splitlines()[0]
    assert "1 files could not be read" in out
    assert "note: no images of green" in out
    with Path("rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 15
    good = [row for row in rows if not row["error"]]
    answers = resnetlab.load(colour_run, checkpoint="last").predict([row["path"] for row in good])
    assert [row["answer"] for row in good] == [one.answer for one in answers]
    assert {row["label"] for row in rows if "/red/" in row["path"]} == {"red"}
    right = sum(row["answer"] == row["label"] for row in good)
    code, out, errors = run("evaluate", colour_run, "--data", other, "--json")
    found = json.loads(out)
    assert (errors, found["n"], found["accuracy"], found["split"]) == ("", 14, right / 14, None)


def test_splits_of_another_folder(run, colour_run, tmp_path):
    for split, count in (("train", 2), ("val", 3), ("test", 4)):
        add_colours(tmp_path / "set" / split, count=count)
    for words, n in (((), 12), (("--split", "validation"), 9), (("--split", "train"), 6)):
        _, out, _ = run("evaluate", colour_run, "--data", tmp_path / "set", "--json", *words)
        assert json.loads(out)["n"] == n


def test_classes_are_told_apart_by_name(run, colour_run, other):
    (other / "red").rename(other / "pink")
    code, _, errors = run("evaluate", colour_run, "--data", other)
    assert code == 3
    assert "does not know: pink; it knows blue, green, red" in errors
    code, _, errors = run("evaluate", colour_run, "--data", other, "--split", "test")
    assert code == 2
    assert "has no splits" in errors


def test_arrays_are_scaled_by_their_white(digits_run):
    """The digits through pixels of 0 to 255 are within a rounding of the digits themselves."""
    own = resnetlab.evaluate_run(digits_run)
    found = evaluate_answers(answers_on(open_predictor(digits_run, checkpoint="last"), "digits", "test"))
    assert found.n == own.n == 360
    assert found.loss == pytest.approx(own.loss, rel=0.02)
    assert abs(found.accuracy - (1 - own.error)) <= 2 / 360

"""Runs and studies whose data or weights have a relative path, read from elsewhere, moved, or moved apart from them."""

import json
import shutil

import pytest

from tests.data.test_folder import add

NET = ("--model", "mlp_resnet8", "--epochs", "1", "--batch-size", "4", "--device", "cpu", "--seeds", "1")
STUDY = ("study", *NET, "--axis", "shortcut=A,none")
SMALL = ("--model", "cifar_resnet8", "--epochs", "1", "--batch-size", "4", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A folder with data and a run on them that has ended, and one that was stopped in its second epoch."""
    from resnetlab.cli import main

    place = tmp_path_factory.mktemp("begun")
    add(place, *(f"set/{name}/{number}.png" for name in "ab" for number in range(6)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["train", *SMALL, "--data", "set", "--out", "run"]) == 0
        assert main(["train", *SMALL, "--data", "folder:set[train=.]", "--out", "two", "--epochs", "2"]) == 0
    (place / "two" / "record.json").unlink()
    return place


@pytest.fixture
def project(begun, tmp_path, monkeypatch):
    """A copy of it, moved, with the former place out of reach; the working folder is an empty one in it."""
    shutil.copytree(begun, tmp_path / "moved")
    for name in ("run", "two"):
        noted = tmp_path / "moved" / name / "data.json"
        plain = json.loads(noted.read_text())
        assert plain["began_in"] == str(begun)
    (tmp_path / "moved" / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "moved" / "empty")
    monkeypatch.setattr("resnetlab.train.folder.BEGAN_IN", "nothing of that name")
    return tmp_path / "moved"


def test_a_run_is_read_from_any_folder(run, begun, tmp_path, monkeypatch):
    """Also from one where something else has the name of its data."""
    monkeypatch.chdir(tmp_path)
    add(tmp_path, *(f"set/{name}/{number}.png" for name in "xy" for number in range(6)), level=7)
    code, out, errors = run("evaluate", begun / "run")
    assert (code, errors) == (0, "")
    assert "n 2" in out
    code, _, errors = run("diagnose", begun / "run", "--what", "gradients", "--out", tmp_path / "diagnosis")
    assert (code, errors) == (0, "")


def test_a_run_that_was_moved_with_its_data_finds_them_beside_it(run, project):
    assert run("evaluate", "../run")[0] == 0
    shutil.move(project / "set", project / "run" / "set")
    assert run("evaluate", "../run")[0] == 0


def test_a_run_that_was_moved_without_its_data_finds_them_where_it_began(run, begun, tmp_path, monkeypatch):
    shutil.copytree(begun / "run", tmp_path / "far" / "run")
    monkeypatch.chdir(tmp_path)
    assert run("evaluate", "far/run")[0] == 0


def test_a_run_that_was_moved_deeper_finds_its_data_above(run, project):
    shutil.move(project / "run", project / "runs" / "old" / "run")
    assert run("evaluate", "../runs/old/run")[0] == 0


def test_other_data_of_that_name_are_passed_over(run, project):
    add(project / "empty", *(f"set/{name}/{number}.png" for name in "xy" for number in range(6)), level=7)
    code, out, errors = run("evaluate", "../run")
    assert (code, errors) == (0, "")
    assert "n 2" in out


def test_resuming_from_elsewhere_gives_the_record_of_before(run, project, begun):
    code, _, errors = run("train", "--resume", "../two", "--quiet")
    assert (code, errors) == (0, "")
    record = json.loads((project / "two" / "record.json").read_text())
    assert record["data"]["source"] == record["recipe"]["data"] == "folder:set[train=.]"


VERBS = {
    "evaluate": ("evaluate", "../run"),
    "diagnose": ("diagnose", "../run", "--what", "gradients", "--out", "diagnosis"),
    "resume": ("train", "--resume", "../two", "--quiet"),
    "prune": ("weights", "prune", "../run", "--without", "stages.0.0", "--out", "smaller"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_data_that_are_nowhere_are_looked_for_and_named(run, project, verb):
    (project / "set").rename(project / "elsewhere")
    code, _, errors = run(*VERBS[verb])
    assert code == 3
    assert "are not there; looked for" in errors
    assert str(project / "set") in errors
    assert "--data" in errors
    brackets = "[train=.]" if verb == "resume" else ""
    head = "folder:" if verb == "resume" else ""
    code, _, errors = run(*VERBS[verb], "--data", f"{head}../elsewhere{brackets}")
    if verb == "prune":  # found, but no block of so small a net can go
        assert (code, "those that can go" in errors) == (2, True)
    else:
        assert (code, errors) == (0, "")


def test_other_data_are_not_taken_for_those_of_the_run(run, project):
    add(project, *(f"other/{name}/{number}.png" for name in "ab" for number in range(6)), level=3)
    code, _, errors = run(*VERBS["resume"], "--data", "folder:../other[train=.]")
    assert code == 3
    assert "its SHA-256 is another" in errors
    code, out, errors = run(*VERBS["evaluate"], "--data", "../other")
    assert code == 0
    assert "evaluated as another set" in errors
    assert "SHA-256 is another" in errors
    assert "n 12" in out, "all of it, not a fifth"


def test_a_run_that_has_ended_is_not_given_again_for_other_data(run, project):
    code, _, errors = run("train", *SMALL, "--data", "../set", "--out", "../run", "--resume", "auto")
    assert code == 2
    assert "data: set → ../set" in errors


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study, one of whose two runs is yet to do, and its data; the working folder is an empty one beside them."""
    from resnetlab.cli import main

    (tmp_path / "empty").mkdir()
    add(tmp_path, *(f"set/{name}/{number}.png" for name in "ab" for number in range(6)))
    monkeypatch.chdir(tmp_path)
    assert main([*STUDY, "--data", "set", "--workers", "1", "--out", "far/a/b/c/d/study"]) == 0
    shutil.rmtree(tmp_path / "far/a/b/c/d/study/runs/none-seed0")
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "far/a/b/c/d/study"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_is_resumed_and_diagnosed_from_any_folder(run, study, tmp_path, workers):
    """Also where something else has the name of its data."""
    add(tmp_path, *(f"empty/set/{name}/{number}.png" for name in "xy" for number in range(6)), level=7)
    code, _, errors = run(*STUDY, "--data", "set", "--workers", workers, "--out", study)
    assert code == 0, errors
    records = [json.loads(path.read_text()) for path in sorted(study.glob("runs/*/record.json"))]
    assert [record["data"]["sha256"] for record in records] == [records[0]["data"]["sha256"]] * 2
    assert [(each["data"]["source"], each["recipe"]["data"]) for each in records] == [("folder:set", "set")] * 2
    code, _, errors = run("diagnose", study, "--what", "residuals", "--out", tmp_path / "found")
    assert code == 0, errors


@pytest.mark.parametrize("workers", [1, 2])
def test_data_of_a_study_that_are_nowhere_are_looked_for_and_named(run, study, tmp_path, workers):
    words = (*STUDY, "--out", study, "--workers", workers)
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    for command in ((*words, "--data", "set"), ("diagnose", study, "--out", tmp_path / "found")):
        code, _, errors = run(*command)
        assert code == 3
        assert f"looked for {tmp_path / 'set'}" in errors
        assert "--data" in errors
    add(tmp_path, *(f"other/{name}/{number}.png" for name in "ab" for number in range(6)), level=3)
    code, _, errors = run(*words, "--data", "../other")
    assert (code, "its SHA-256 is another" in errors) == (3, True)
    code, _, errors = run(*words, "--data", "../elsewhere")
    assert code == 0, errors
    found = json.loads((study / "results.json").read_text())
    assert [each["record"]["recipe"]["data"] for each in found["runs"]] == ["set", "set"]
    command = ("diagnose", study, "--what", "residuals", "--out", tmp_path / "found", "--data")
    assert run(*command, "../elsewhere")[0] == 0
    assert run(*command, "../other")[0] == 3


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """A run on digits from a run folder of a relative path, which has ended, and the same stopped in its last epoch."""
    from resnetlab.cli import main

    words = ("train", "--model", "mlp_resnet8", "--batch-size", "256", "--device", "cpu", "--quiet")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--epochs", "1", "--out", "first"]) == 0
    for name in ("whole", "stopped"):
        assert main([*words, "--epochs", "1", "--weights", "first", "--seed", "1", "--out", f"a/b/c/d/e/{name}"]) == 0
    (tmp_path / "a/b/c/d/e/stopped/record.json").unlink()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "a/b/c/d/e"


def test_a_run_from_weights_of_a_relative_path_is_read_from_any_folder(run, tuned, tmp_path):
    code, _, errors = run("train", "--resume", tuned / "stopped", "--quiet")
    assert (code, errors) == (0, "")
    whole, resumed = (json.loads((tuned / name / "record.json").read_text()) for name in ("whole", "stopped"))
    assert resumed["recipe"]["weights"] == "first"
    assert resumed["gradients_start"] == whole["gradients_start"]
    code, _, errors = run("diagnose", tuned / "whole", "--what", "gradients", "--out", tmp_path / "diagnosis")
    assert (code, errors) == (0, "")


def test_weights_that_are_gone_are_needed_for_no_evaluation(run, tuned, tmp_path):
    (tmp_path / "first").rename(tmp_path / "elsewhere")
    for words in (("evaluate", tuned / "whole"), ("diagnose", tuned / "whole", "--what", "lesion")):
        code, _, errors = run(*words, *(("--out", tmp_path / "diagnosis") if words[0] == "diagnose" else ()))
        assert (code, errors) == (0, "")
    code, _, errors = run("train", "--resume", tuned / "stopped", "--quiet")
    assert code == 4
    assert f"looked for {tmp_path / 'first'}" in errors


def test_a_study_from_weights_of_a_relative_path_is_resumed_from_any_folder(run, tuned, tmp_path, monkeypatch):
    words = (*STUDY, "--weights", "first", "--batch-size", "256", "--out", tmp_path / "f/g/h/i/j/study")
    monkeypatch.chdir(tmp_path)
    assert run(*words)[0] == 0
    shutil.rmtree(tmp_path / "f/g/h/i/j/study/runs/none-seed0")
    monkeypatch.chdir(tmp_path / "empty")
    code, _, errors = run(*words)
    assert code == 0, errors

"""A run whose data have a relative path, read from elsewhere, moved, or moved apart from its data."""

import json
import shutil

import pytest

from tests.data.test_folder import add

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

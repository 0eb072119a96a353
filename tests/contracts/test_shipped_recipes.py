"""The shipped recipes are found by name, from a clone as from a wheel, and a file of that name is taken before them."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from resnetlab.core.errors import DataError
from resnetlab.train import recipe as recipes
from resnetlab.train.recipe import Recipe, find_recipe, load_recipe, shipped_recipes
from tests.conftest import ROOT

BUILD = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]


@pytest.fixture
def run(capsys):
    from tests.cli.conftest import run

    return run.__wrapped__(capsys)


def test_every_recipe_of_the_clone_is_listed_with_cost_and_result(run):
    code, shown, _ = run("recipes")
    assert code == 0
    for path in (ROOT / "recipes").rglob("*.yaml"):
        name = path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        assert f"\n{name} " in shown
    assert "0.65 ± 0.16 %" in shown
    assert max(map(len, shown.splitlines())) <= 120
    code, shown, _ = run("recipes", "digits/*")
    assert [line.split()[0] for line in shown.splitlines() if line and line[0] != " "] == [
        "name",
        "digits/quick",
        "digits/resnet20",
    ]
    assert run("recipes", "none*")[0] == 2


@pytest.mark.parametrize("word", ["digits/resnet20", "digits/resnet20.yaml", "recipes/digits/resnet20.yaml"])
def test_a_name_gives_the_recipe_in_any_folder(run, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, shown, errors = run("train", word, "--seed", "3", "--print-config")
    assert (code, errors) == (0, "")
    (tmp_path / "printed.yaml").write_text(shown)
    assert load_recipe(tmp_path / "printed.yaml") == Recipe(validation=False, seed=3)
    assert run("find-lr", word, "--steps", "x")[0] == 2
    assert "[RECIPE]" in run("find-lr", word, "--help")[1]


def test_a_study_takes_a_name_with_its_axes(tmp_path, monkeypatch):
    from resnetlab.cli.commands import read_command

    monkeypatch.chdir(tmp_path)
    assert [*read_command(["study", "study/options", "--seeds", "4"]).config.axes] == ["shortcut"]


def test_a_file_is_taken_before_the_recipe_of_its_name_and_a_note_says_so(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "quick").write_text("seed: 9")
    code, shown, errors = run("train", "digits/quick", "--print-config")
    assert (code, "seed: 9" in shown) == (0, True)
    assert errors == "digits/quick is read, a file here; the shipped recipe digits/quick is another\n"
    # The clone's own file is the shipped recipe.
    monkeypatch.chdir(ROOT)
    assert run("train", "./recipes/digits/quick.yaml", "--print-config")[::2] == (0, "")


def test_a_missing_recipe_names_those_that_exist_the_nearest_first(run):
    code, _, errors = run("train", "digits/resnet2")
    assert code == 3
    assert "resnetlab recipes lists: digits/resnet20, " in errors
    assert "more" in errors


def test_the_wheel_puts_the_recipes_where_they_are_looked_for(tmp_path, monkeypatch):
    """The folder beside the code goes before that of a clone."""
    (inside,) = BUILD["wheel"]["force-include"].values()
    assert ROOT / "src" / inside == recipes.BESIDE
    assert BUILD["wheel"]["force-include"] == {"recipes": inside}
    assert "recipes" in BUILD["sdist"]["include"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.yaml").write_text("seed: 1")
    monkeypatch.setattr(recipes, "BESIDE", tmp_path)
    assert shipped_recipes() == {"a/b": tmp_path / "a" / "b.yaml"}
    with pytest.raises(DataError, match=r"lists: a/b$"):
        find_recipe(tmp_path / "none")


@pytest.mark.slow
def test_a_wheel_built_from_an_sdist_has_every_recipe(tmp_path):
    source, wheels, installed = tmp_path / "sdist", tmp_path / "wheels", tmp_path / "installed"
    source.mkdir()
    for name in (*BUILD["sdist"]["include"], "pyproject.toml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(source)]
    subprocess.run(pip, check=True)
    (wheel,) = wheels.iterdir()
    zipfile.ZipFile(wheel).extractall(installed)
    command = [sys.executable, "-m", "resnetlab", "train", "digits/quick", "--print-config"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    shown = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    (tmp_path / "printed.yaml").write_text(shown)
    assert load_recipe(tmp_path / "printed.yaml") == load_recipe(ROOT / "recipes" / "digits" / "quick.yaml")
    inside = {path.relative_to(installed / "resnetlab" / "recipes") for path in installed.rglob("*.yaml")}
    assert inside == {path.relative_to(ROOT / "recipes") for path in (ROOT / "recipes").rglob("*.yaml")}

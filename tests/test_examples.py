"""The course in ``examples/``: every script runs, and its numbers are what its text says."""

import re
import runpy
import sys

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def play(number: int, folder, monkeypatch) -> dict:
    """What the script has computed, by name; its figures lie in ``folder``."""
    (script,) = (path for path in SCRIPTS if path.name.startswith(f"{number}_"))
    monkeypatch.setattr(sys, "argv", [str(script), str(folder)])
    found = runpy.run_path(str(script), run_name="__main__")
    for figure in folder.glob("*"):
        assert figure.stem == script.stem
        assert figure.read_bytes().startswith(b"\x89PNG")
    return found


def test_the_block_by_hand_is_that_of_torch_and_silent_it_is_the_identity(tmp_path, monkeypatch, capsys):
    found = play(1, tmp_path, monkeypatch)
    assert len(found["largest"]) == 5
    assert max(found["largest"].values()) < 1e-12
    assert found["identity"]
    assert not found["plain_out"].any()
    assert not found["plain_back"].any()
    assert found["residual_back"].sum() == (found["a"] > 0).sum() > 0
    assert capsys.readouterr().out.count("largest difference") == 5


@pytest.mark.slow
def test_depth_costs_the_plain_net_more(tmp_path, monkeypatch):
    found = play(2, tmp_path, monkeypatch)
    assert found["rise"]["plain"] > found["rise"]["residual"] + 0.1
    assert found["errors"]["residual", 44] < 0.1
    assert len([*tmp_path.iterdir()]) == 1


def test_gradients_grow_in_plain_nets_and_stay_even_in_residual_ones(tmp_path, monkeypatch):
    growth = play(3, tmp_path, monkeypatch)["growth"]
    assert growth["plain", 8] < growth["plain", 20] < growth["plain", 56]
    assert growth["plain", 56] > 2
    assert abs(growth["residual", 56]) < 1
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.slow
def test_a_block_costs_the_residual_net_less(tmp_path, monkeypatch):
    found = play(4, tmp_path, monkeypatch)
    assert found["whole"]["residual"] < 0.1
    assert found["whole"]["plain"] < 0.5
    assert len(found["costs"]["plain"]) == len(found["costs"]["residual"]) == 7
    assert found["typical"]["residual"] < found["typical"]["plain"] / 2
    assert len([*tmp_path.iterdir()]) == 1


@pytest.mark.slow
def test_a_deeper_net_says_the_same_and_learns_on(tmp_path, monkeypatch):
    found = play(5, tmp_path, monkeypatch)
    assert found["equal"]
    assert found["before"] == found["after"] < 0.2
    assert min(found["moved"]) > 0
    assert found["second"][-1].trained.loss < found["first"][-1].trained.loss
    assert len([*tmp_path.iterdir()]) == 1


def test_the_table_of_contents_names_every_script_and_no_other():
    text = (ROOT / "examples" / "README.md").read_text()
    assert re.findall(r"\]\((\d_\w+\.py)\)", text) == [path.name for path in SCRIPTS]
    assert len(SCRIPTS) == 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_are_cells_and_end_in_a_question(script):
    text = script.read_text()
    assert text.count("\n# %%") >= 3
    assert "# %% [markdown]" in text
    assert text.count("A question to try: ") == 1

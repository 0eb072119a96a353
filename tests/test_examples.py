"""The course in ``examples/``: every script runs, and its numbers are what its text says."""

import re
import runpy
import sys

import numpy as np
import pytest

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def play(number: int, folder, monkeypatch) -> dict:
    """What the script has computed, by name; its figures lie in ``folder``: one each, but for the first script."""
    (script,) = (path for path in SCRIPTS if path.name.startswith(f"{number}_"))
    monkeypatch.setattr(sys, "argv", [str(script), str(folder)])
    found = runpy.run_path(str(script), run_name="__main__")
    assert [path.name for path in folder.iterdir()] == [f"{script.stem}.png"] * (number > 1)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    return found


@pytest.fixture(scope="module")
def by_hand():
    with pytest.MonkeyPatch.context() as patch:
        (script,) = (path for path in SCRIPTS if path.name.startswith("1_"))
        patch.setattr(sys, "argv", [str(script)])
        return runpy.run_path(str(script), run_name="__main__")


def test_the_block_by_hand_is_that_of_torch_and_of_resnetlab(by_hand):
    assert len(by_hand["largest"]) == 6
    assert np.max([*by_hand["largest"].values()]) < 1e-12
    assert by_hand["forgotten"] > 0.1
    assert by_hand["changed"] > 1e-3


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2", "a", "W_s"])
@pytest.mark.parametrize("case", [(6, 9, "B"), (6, 4, "B"), (6, 6, "C")], ids=str)
def test_the_comparison_by_hand_finds_every_gradient_that_is_wrong(by_hand, name, case):
    before, after, option = case
    w = by_hand["weights"](before, after, option)
    a, d_out = np.ones((3, before)), np.ones((3, after))
    ours = by_hand["backward"](by_hand["forward"](a, w), w, d_out)
    ours["out"] = by_hand["forward"](a, w)["out"]
    for theirs in (by_hand["in_torch"](a, w, d_out), by_hand["in_resnetlab"](a, w, d_out, option)):
        assert by_hand["difference"](ours, theirs) < 1e-12
        wrong = ours | {name: ours[name] + 1e-6}
        assert by_hand["difference"](wrong, theirs) == pytest.approx(1e-6, rel=1e-3)


def test_zero_weights_are_the_identity_with_a_shortcut_and_nothing_without(by_hand):
    assert by_hand["identity"]
    assert by_hand["residual_back"].sum() == by_hand["positive"] > 0
    assert not by_hand["plain"]["out"].any()
    assert not by_hand["plain_back"].any()


def test_gradients_through_many_blocks_vanish_without_shortcuts_and_explode_with_either(by_hand):
    assert not by_hand["slope"].any()
    plain, residual = ({s: both[place] for s, both in by_hand["reached"].items()} for place in (0, 1))
    assert plain[0.5] < 1e-12
    assert plain[1.0] < 1e-4
    assert 0.1 < residual[0.5] < 10
    assert min(plain[2.0], residual[2.0]) > 1e4


@pytest.mark.slow
def test_depth_costs_the_plain_net_more(tmp_path, monkeypatch):
    found = play(2, tmp_path, monkeypatch)
    assert found["paired"] == {8: True, 32: True}
    assert found["errors"]["plain", 8] < 0.1
    assert found["errors"]["residual", 32] < 0.1
    assert found["rise"]["plain"] > 0.2
    assert found["rise"]["residual"] < 0.05


@pytest.mark.slow
def test_gradients_grow_in_plain_nets_and_stay_even_in_residual_ones(tmp_path, monkeypatch):
    found = play(3, tmp_path, monkeypatch)
    growth, factor = found["growth"], found["factor"]
    assert growth["plain", 8] < growth["plain", 20] < growth["plain", 56]
    assert growth["plain", 56] > 3
    assert abs(growth["residual", 56]) < 1
    assert all(1.3 < factor["plain", depth] < 1.5 for depth in (8, 20, 56))
    assert factor["residual", 8] > factor["residual", 20] > factor["residual", 56] > 1
    assert factor["residual", 56] < 1.15
    assert found["apart"]["plain"] > 1000 > 100 > found["apart"]["residual"]


@pytest.mark.slow
def test_a_block_costs_the_residual_net_less(tmp_path, monkeypatch):
    found = play(4, tmp_path, monkeypatch)
    assert found["whole"]["residual"] < 0.1
    assert found["whole"]["plain"] < 0.3
    assert found["blocks"] == 9
    assert len(found["costs"]["plain"]) == len(found["costs"]["residual"]) == 7
    assert found["typical"]["plain"] > 0.5
    assert found["typical"]["residual"] < 0.25


@pytest.mark.slow
def test_a_deeper_net_says_the_same_and_learns_on(tmp_path, monkeypatch):
    found = play(5, tmp_path, monkeypatch)
    assert found["equal"]
    assert found["blind"]
    assert found["before"] == found["after"] < 0.2
    assert found["asleep"] == 0 < min(found["awake"])
    assert min(found["moved"]) > 1e-3
    assert found["further"]["20 layers"][-1].trained.loss < found["first"][-1].trained.loss


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
    assert "A question to try: " in text.splitlines()[-1 if script.name.startswith("1_") else -2]

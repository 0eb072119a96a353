"""Flags of other projects are answered with ours, which exist; and no flag of ours is taken for another's."""

import re

import pytest

from resnetlab.cli.commands import read_command
from resnetlab.cli.find_lr import FindLr
from resnetlab.cli.habits import HABITS
from resnetlab.cli.recipe_args import flags_of
from resnetlab.cli.train import Train
from resnetlab.core.errors import ConfigError


def flags(command: type) -> set[str]:
    return {f"--{flag.name.replace('_', '-')}" for flag in flags_of(command)}


@pytest.mark.parametrize("habit", HABITS)
def test_a_habit_is_answered_with_flags_that_exist(habit):
    with pytest.raises(ConfigError) as refused:
        read_command(["train", "--data", "digits", habit, "8"])
    assert HABITS[habit] in str(refused.value)
    named = set(re.findall(r"--[a-z-]+", HABITS[habit])) - {"--nproc-per-node"}
    assert named <= flags(Train)


@pytest.mark.parametrize("form", ["{}=8", "{_}"])
def test_each_form_of_a_flag_is_answered(form):
    for habit in list(HABITS)[::12]:
        word = form.format(habit, _=habit.replace("-", "_").replace("__", "--", 1))
        with pytest.raises(ConfigError) as refused:
            read_command(["train", "--data", "digits", word, "8"])
        assert HABITS[habit] in str(refused.value)


def test_no_flag_of_ours_is_a_habit():
    assert not HABITS.keys() & (flags(Train) | flags(FindLr))


def test_a_value_that_looks_like_one_is_read_by_its_flag():
    assert read_command(["train", "--model", "arch"]).recipe.model == "arch"

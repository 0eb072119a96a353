"""From the words of a command to its recipe: the values of a file, or of a run, changed by flags."""

from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

import tyro

from resnetlab.cli.recipe_help import recipe_help
from resnetlab.core.errors import ConfigError
from resnetlab.train.folder import RECIPE
from resnetlab.train.recipe import Recipe, check_best_by, load_recipe, read_recipe

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class WithRecipe:
    """The flags of a command that takes a recipe."""

    file: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RECIPE]")] = None
    """File of settings in YAML, such as recipes/digits/resnet20.yaml; it comes first, and flags change what it says."""
    recipe: Annotated[Recipe, tyro.conf.OmitArgPrefixes]
    """What is trained."""

    @classmethod
    def read(cls, words: list[str], prog: str) -> Self:
        """The command that the words give, or its help. tyro answers wrong words with exit code 2.

        Raises ``DataError`` for a file that is missing, ``ConfigError`` for what is wrong in it or in a flag.
        """
        if {"-h", "--help"} & set(words):
            print(recipe_help(cls, prog))
            raise SystemExit(0)
        base = base_recipe(words, prog)
        for before, word in pairwise(words):
            if before == "--best-by":
                check_best_by(word)
        # A dict that is not empty would become flags of its own, --norm instead of --options norm.
        command = tyro.cli(cls, default=cls(recipe=replace(base, options={})), args=words, prog=prog)
        if command.file is not None and words[0] != str(command.file):
            raise late_file(str(command.file), prog)
        return replace(command, recipe=replace(command.recipe, options=base.options | command.recipe.options))


def base_recipe(words: list[str], prog: str) -> Recipe:
    """What the flags change: the recipe of the file that comes first, of the run that is resumed, or the default."""
    if words and not words[0].startswith("-"):
        return load_recipe(Path(words[0]))
    for before, word in pairwise(words):
        if word.endswith(SUFFIXES) and not before.startswith("--"):
            raise late_file(word, prog)
    run = resumed_run(words)
    return Recipe() if run is None else read_recipe(run / RECIPE)


def late_file(file: str, prog: str) -> ConfigError:
    """The error for a file that comes behind flags, when it is too late for them to change it."""
    return ConfigError(f"{file} comes too late: name the recipe first, {prog} {file} …, and the flags behind it")


def resumed_run(words: list[str]) -> Path | None:
    """The folder in ``--resume FOLDER``; None where there is none."""
    values = [word.removeprefix("--resume=") for word in words if word.startswith("--resume=")]
    values += [word for before, word in pairwise(words) if before == "--resume"]
    return Path(values[-1]) if values and values[-1] not in ("never", "auto") else None

"""``resnetlab study`` and ``resnetlab report``: many runs in one folder, and their tables and page."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import tyro

from resnetlab.cli.recipe_args import WithRecipe, late_file
from resnetlab.cli.train import leads
from resnetlab.core.errors import DataError, DivergedError, StoppedError
from resnetlab.records.study import Comparison, StudyRecord
from resnetlab.study import STUDY, AxesStudy, StudyConfig, read_study, run_study
from resnetlab.study.axes import join_values, load_study, read_axes
from resnetlab.train.recipe import Recipe

OUT = Path("runs/study")
SEEDS = 3


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare plain and residual nets over depths and seeds; make tables, figures and a page.

    To compare anything else, name a recipe or axes: resnetlab study [RECIPE] --axis shortcut=A,B,C,none --axis
    training.lr=0.05,0.1 --axis depth=20,56 --seeds 5, with the flags of resnetlab train. Under torchrun the processes
    share the runs. A study that was interrupted goes on where it stood when the same command is given again.
    """

    config: Annotated[StudyConfig, tyro.conf.OmitArgPrefixes]
    """What is compared."""
    out: Path = OUT
    """Folder of the study; a new or empty one, or one to go on with."""

    def __call__(self) -> None:
        do_study(self.config, self.out)


@dataclass(frozen=True, kw_only=True)
class StudyOfAxes(WithRecipe):
    """Compare the values of any settings, paired by seed; make tables, a figure and a page.

    RECIPE is a YAML file of settings, with or without axes and seeds; flags change what it says. Under torchrun the
    processes share the runs. A study that was interrupted goes on where it stood when the same command is given again.
    """

    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE: a field of the recipe, such as shortcut=A,B or training.lr=0.05,0.1 or options.norm=batch,none,
    or depth=20,56 for the number in the model's name. Once for each axis; differences are taken to the first value."""
    seeds: int = SEEDS
    """Runs of each combination, with seeds from --seed on."""
    out: Path = OUT
    """Folder of the study; a new or empty one, or one to go on with."""

    @classmethod
    def read(cls, words: list[str], prog: str) -> Self:
        """The command that the words give; axes of flags stand beside those of the file, or in their place."""
        recipe, axes, seeds = Recipe(), dict[str, tuple[str, ...]](), None
        if words and not words[0].startswith("-"):
            recipe, axes, seeds = load_study(Path(words[0]))
        default = cls(recipe=replace(recipe, options={}), seeds=SEEDS if seeds is None else seeds)
        command = tyro.cli(cls, default=default, args=words, prog=prog)
        if command.file is not None and words[0] != str(command.file):
            raise late_file(str(command.file), prog)
        merged = axes | read_axes(command.axis)
        return replace(
            command,
            recipe=replace(command.recipe, options=recipe.options | command.recipe.options),
            axis=tuple(f"{name}={join_values(values)}" for name, values in merged.items()),
        )

    @property
    def config(self) -> AxesStudy:
        """The study. Raises ``ConfigError`` for what makes none."""
        return AxesStudy(recipe=self.recipe, axes=read_axes(self.axis), seeds=self.seeds)

    def __call__(self) -> None:
        do_study(self.config, self.out)


def names_axes(words: list[str]) -> bool:
    """Whether the words of a study name a recipe or an axis, and so no grid of kinds and depths."""
    named = bool(words) and not words[0].startswith("-")
    return named or any(word == "--axis" or word.startswith("--axis=") for word in words)


def do_study(config: StudyConfig | AxesStudy, out: Path) -> None:
    """Run the study, or this rank's part of it, and let the leading rank tell what came of it.

    Raises ``DivergedError`` where every run diverged, ``StoppedError`` saying how to go on.
    """
    from resnetlab.cli.study_progress import StudyProgress
    from resnetlab.study.plan import NoStudyCallback
    from resnetlab.train.signals import stop_on_signals

    try:
        with stop_on_signals() as stop:
            if leads():
                with StudyProgress() as progress:
                    study = run_study(config, out, progress, stop)
            else:
                study = run_study(config, out, NoStudyCallback(), stop)
    except StoppedError as error:
        raise StoppedError(f"{error}; to go on, give the same command again", error.signal) from error
    if leads():
        show_study(study, out)
    if not any(run.record.final for run in study.runs):
        raise DivergedError(f"every run diverged; the first: {study.runs[0].record.message}")


def show_study(study: StudyRecord | Comparison, out: Path) -> None:
    """Write the page of the study and print its tables."""
    from resnetlab.cli.tables import print_comparison, print_study
    from resnetlab.report.study.comparison_page import write_comparison
    from resnetlab.report.study.page import write_report

    if isinstance(study, StudyRecord):
        print_study(study, write_report(study, out))
    else:
        print_comparison(study, write_comparison(study, out))


def report_study(folder: Path) -> None:
    """Draw tables, figures and page of the study in ``folder`` again. Raises ``DataError`` where it holds none."""
    if not (folder / STUDY).is_file():
        raise DataError(f"{folder} holds no study and no run; give the --out of a study or of a training")
    show_study(read_study(folder), folder)

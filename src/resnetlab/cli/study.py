"""``resnetlab study`` and ``resnetlab report``: many runs in one folder, and their tables and page."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Self

import tyro

from resnetlab.cli.recipe_args import WithRecipe, check_file
from resnetlab.cli.tables import print_study
from resnetlab.cli.train import leads
from resnetlab.core.errors import ConfigError, DataError, DivergedError, StoppedError
from resnetlab.data.config import DecodeConfig
from resnetlab.records.study import StudyRecord
from resnetlab.study import STUDY, NoStudyCallback, Study, read_study, run_study
from resnetlab.study.config import (
    FAMILIES,
    Family,
    Kind,
    StudyFile,
    depth_axes,
    load_study,
    read_axes,
    read_tune,
    study_recipe,
    uncropped,
)
from resnetlab.study.keep import Keep
from resnetlab.study.workers import Workers
from resnetlab.train.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StudyDecode(DecodeConfig):
    """The same settings; the flag ``--workers`` of a study is its own."""

    workers: Annotated[int, tyro.conf.arg(name="data-workers")] = 0
    """Threads that open images before training, and processes that decode them while a network trains, in each worker
    of the study; --workers of other commands."""


@dataclass(frozen=True, kw_only=True)
class StudyRecipe(Recipe):
    """A recipe whose settings are flags of a study."""

    decode: StudyDecode = field(default_factory=StudyDecode)
    """How images and labels are read."""

    @classmethod
    def of(cls, recipe: Recipe) -> Self:
        """The recipe, for its flags."""
        return cls(**vars(recipe) | {"decode": StudyDecode(**vars(recipe.decode))})

    @property
    def plain(self) -> Recipe:
        """The recipe, for a run."""
        return Recipe(**vars(self) | {"decode": DecodeConfig(**vars(self.decode))})


@dataclass(frozen=True, kw_only=True)
class StudyCommand(WithRecipe):
    """Compare networks that differ only in the settings under study, over seeds; make tables, figures and a page.

    Without arguments it compares plain and residual nets at depths 8, 20 and 56. RECIPE is a YAML file of settings,
    with or without axes and seeds; flags override it. --workers of this machine share the runs, and whoever starts the
    same command again, in another terminal or on another machine that sees the folder, joins them. It resumes a study
    that was interrupted, too.
    """

    recipe: Annotated[StudyRecipe, tyro.conf.OmitArgPrefixes]
    """What is trained."""
    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=VALUE,VALUE: a field of the recipe, such as shortcut=A,B or training.lr=0.05,0.1 or options.norm=batch,none,
    or depth=20,56 for the number in the model's name. Once for each axis; differences are taken to the first value."""
    depths: tuple[int, ...] = ()
    """Weight layers: plain and residual nets (see --kinds) at these depths, 8 20 56 by default."""
    kinds: tuple[Kind, ...] = ()
    """Nets without and with shortcuts: short for the axis shortcut=none,default (or --shortcut). Both by default."""
    family: Family | None = None
    """Networks of --depths: cifar_*, imagenet (resnet18, resnet34, ...) or mlp_*; short for a --model."""
    seeds: int = 3
    """Runs of each condition, with seeds from --seed on; all are paired by seed."""
    tune: str | None = None
    """NAME=VALUE,VALUE: a setting that is a number, such as training.lr=0.01,0.03,0.1. Each condition is judged at its
    own best value, the one with the lowest mean training error over seeds that choose and do not judge."""
    tune_seeds: int = 2
    """Runs of each condition at each value of --tune."""
    workers: Workers = "auto"
    """Processes on this machine that share the runs, each with one thread; no figure depends on how many. auto: as many
    as cores, or on cuda as devices."""
    ray: str | None = None
    """Instead of --workers: each run is a task of the Ray cluster at this address, HOST:PORT or auto for that of this
    machine; or local, a Ray of its own. Extra ray."""
    keep: Keep = "weights"
    """What a run keeps once it has ended: weights, which is what diagnose and predict need, checkpoints with the state
    of the optimizer as well, or none, the record alone."""
    out: Path = Path("runs/study")
    """Folder of the study; a new or empty one, or one to resume."""
    of_file: Annotated[StudyFile | None, tyro.conf.Fixed, tyro.conf.Suppress] = None

    @classmethod
    def read(cls, words: list[str], prog: str, base: Recipe | None = None) -> Self:
        """The command that the words give; axes of flags stand beside those of the file, or in their place."""
        given = StudyFile(recipe=base or study_recipe())
        if words and not words[0].startswith("-"):
            given = load_study(Path(words[0]))
        recipe = given.recipe
        default = cls(
            recipe=StudyRecipe.of(replace(recipe, options={})),
            seeds=3 if given.seeds is None else given.seeds,
            tune_seeds=2 if given.tune_seeds is None else given.tune_seeds,
        )
        command = tyro.cli(cls, default=default, args=words, prog=prog)
        check_file(command.file, words, prog)
        if command.ray is not None and any(word.partition("=")[0] == "--workers" for word in words):
            raise ConfigError("--ray and --workers both say who does the runs; give one of them")
        command.forget()
        if command.family and command.recipe.model not in (recipe.model, FAMILIES[command.family]):
            raise ConfigError(
                f"--family {command.family} and --model {command.recipe.model} name two networks; give one"
            )
        return replace(
            command,
            recipe=replace(command.recipe, options=recipe.options | command.recipe.options),
            of_file=given,
        )

    @property
    def config(self) -> Study:
        """The study. Raises ``ConfigError`` for what makes none."""
        of_file = self.of_file or StudyFile(recipe=self.recipe.plain)
        recipe, axes = self.recipe.plain, of_file.axes
        if self.depths or self.kinds or self.family or not (self.file or self.axis):
            axes = axes | depth_axes(self.kinds, self.depths, recipe.shortcut)
            model = FAMILIES[self.family] if self.family else recipe.model
            recipe = replace(recipe, model=model, shortcut="default")
        if not (self.file or self.axis):
            recipe = uncropped(recipe)
        return Study(
            recipe=recipe,
            axes=axes | read_axes(self.axis),
            seeds=self.seeds,
            tune=read_tune(self.tune) or of_file.tune,
            tune_seeds=self.tune_seeds,
        )

    def __call__(self) -> None:
        """Run the study, or this worker's part of it, and tell what came of it.

        Raises ``DivergedError`` where every run diverged, ``StoppedError`` saying how to resume.
        """
        # What is wrong with it is told before torch is loaded.
        study = self.config

        from resnetlab.cli.progress import StudyProgress
        from resnetlab.train.signals import stop_on_signals

        try:
            with stop_on_signals() as stop:
                workers = self.workers if self.ray is None else 1
                with StudyProgress() if leads() else nullcontext(NoStudyCallback()) as callback:
                    record = run_study(study, self.out, callback, stop, workers, self.keep, self.ray)
        except StoppedError as error:
            raise StoppedError(f"{error}; to resume, give the same command again", error.signal) from error
        if leads():
            show_study(record, self.out)
        if not any(run.record.final for run in record.runs):
            raise DivergedError(f"every run diverged; the first: {record.runs[0].record.message}")


def show_study(study: StudyRecord, out: Path) -> None:
    """Write the page of the study and print its tables."""
    from resnetlab.report.study.page import write_report

    print_study(study, write_report(study, out))


def report_study(folder: Path) -> None:
    """Draw tables, figures and page of the study in ``folder`` again. Raises ``DataError`` where it holds none."""
    if not (folder / STUDY).is_file():
        raise DataError(f"{folder} holds no study and no run; give the --out of a study or of a training")
    show_study(read_study(folder), folder)

"""The verbs. Each is a dataclass of its flags, and a function that does it and prints what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from resnetlab.cli.data import Data
from resnetlab.cli.plan import Plan
from resnetlab.cli.weights import weights
from resnetlab.errors import DivergedError, unknown_name
from resnetlab.recipe import Recipe
from resnetlab.study import StudyConfig


@dataclass(frozen=True, kw_only=True)
class List:
    """List the networks by name."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern, such as 'cifar_*'."""

    def __call__(self) -> None:
        from resnetlab.cli.tables import print_names
        from resnetlab.models.zoo import list_models

        print_names(list_models(self.pattern), self.pattern)


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show what networks are made of and what they cost, side by side."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """Networks, such as: vgg19 plain34 resnet34."""
    shortcut: Literal["default", "A", "B", "C", "none"] = "default"
    """Shortcut option instead of the named network's own."""
    image_size: int | None = None
    """Side of the picture in pixels; the family's own by default."""

    def __call__(self) -> None:
        from resnetlab.cli.anatomy import print_summaries

        print_summaries(self.names, self.shortcut, self.image_size)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train one network; the run folder keeps checkpoints, metrics and the record."""

    recipe: Annotated[Recipe, tyro.conf.OmitArgPrefixes]
    """What is trained."""
    out: Path = Path("runs/train")
    """Folder of the run; a new or empty one, or one to go on with."""
    resume: Literal["never", "auto"] = "never"
    """auto goes on from the last checkpoint in the folder, bit for bit, and starts anew where there is none."""

    def __call__(self) -> None:
        from resnetlab.cli.progress import TrainingProgress
        from resnetlab.cli.tables import print_run
        from resnetlab.run import run_recipe

        with TrainingProgress() as progress:
            record = run_recipe(self.recipe, self.out, resume=self.resume == "auto", watcher=progress)
        print_run(record, self.out)
        if record.status == "diverged":
            raise DivergedError(record.message)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Count loss and error of a trained network on its test pictures afresh."""

    run: tyro.conf.Positional[Path]
    """Folder of a run."""
    checkpoint: Literal["last", "best"] = "last"
    """The last epoch, or the one of the lowest test error: chosen by the test pictures, it flatters."""

    def __call__(self) -> None:
        from resnetlab.cli.tables import print_metrics
        from resnetlab.run import evaluate_run

        print_metrics(evaluate_run(self.run, self.checkpoint))


@dataclass(frozen=True, kw_only=True)
class Study:
    """Compare plain and residual nets over depths and seeds; make tables, figures and a page.

    A study that was interrupted goes on where it stood when the same command is given again.
    """

    config: Annotated[StudyConfig, tyro.conf.OmitArgPrefixes]
    """What is compared."""
    out: Path = Path("runs/study")
    """Folder of the study; a new or empty one, or one to go on with."""

    def __call__(self) -> None:
        from resnetlab.cli.progress import StudyProgress
        from resnetlab.cli.tables import print_study
        from resnetlab.report.page import write_report
        from resnetlab.study import run_study

        with StudyProgress() as progress:
            study = run_study(self.config, self.out, progress)
        print_study(study, write_report(study, self.out))
        if not any(run.record.final for run in study.runs):
            raise DivergedError(f"every run diverged; the first: {study.runs[0].record.message}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Draw the tables, figures and page of a study again, from its records alone."""

    study: tyro.conf.Positional[Path]
    """Folder of a study."""

    def __call__(self) -> None:
        from resnetlab.cli.tables import print_study
        from resnetlab.report.page import write_report
        from resnetlab.study import read_study

        study = read_study(self.study)
        print_study(study, write_report(study, self.study))


VERBS: dict[str, Callable[..., Any]] = {
    "list": List,
    "info": Info,
    "plan": Plan,
    "train": Train,
    "evaluate": Evaluate,
    "study": Study,
    "report": Report,
    "weights": weights,
    "data": Data,
}


def run_verb(words: list[str]) -> None:
    """Read the words of a command and do it. tyro answers wrong ones with exit code 2 and the nearest right name."""
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise unknown_name("command", words[0], VERBS)
    verb = tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="resnetlab",
        description="Build, train and explain plain and residual networks.",
        args=words,
    )
    verb()

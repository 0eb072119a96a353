"""The verbs. Each is a dataclass of its flags, and a function that does it and prints what came of it."""

from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import tyro

from resnetlab.cli.data import Data
from resnetlab.cli.diagnose import Diagnose
from resnetlab.cli.evaluate import Evaluate
from resnetlab.cli.export import Export, Verify
from resnetlab.cli.failures import Failures
from resnetlab.cli.find_lr import FindLr
from resnetlab.cli.memory import Plan
from resnetlab.cli.predict import Predict
from resnetlab.cli.recipe_args import WithRecipe
from resnetlab.cli.serve import Serve
from resnetlab.cli.share import Pull, Push
from resnetlab.cli.study import StudyCommand
from resnetlab.cli.tables import print_names, print_recipes, print_run, show
from resnetlab.cli.train import Train
from resnetlab.cli.weights import weights
from resnetlab.core.errors import DataError, unknown_name
from resnetlab.train.recipe import ShortcutChoice


@dataclass(frozen=True, kw_only=True)
class List:
    """List the networks by name."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern, such as 'cifar_*'."""

    def __call__(self) -> None:
        from resnetlab.models.architectures import listed_names

        print_names(listed_names(self.pattern), self.pattern)


@dataclass(frozen=True, kw_only=True)
class Info:
    """Show what networks are made of and what they cost, side by side."""

    names: tyro.conf.Positional[tuple[str, ...]]
    """Networks, such as: vgg19 plain34 resnet34."""
    shortcut: ShortcutChoice = "default"
    """Shortcut option instead of the named network's own."""
    image_size: int | None = None
    """Side of the image in pixels; the family's own by default."""

    def __call__(self) -> None:
        from resnetlab.cli.info import print_summaries

        print_summaries(self.names, self.shortcut, self.image_size)


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """List the recipes that are shipped: train, find-lr and study take them by name, and flags override them."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern, such as 'digits/*'."""

    def __call__(self) -> None:
        print_recipes(self.pattern)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Draw the page of a run, study or diagnosis, and a study's tables and figures, again from its records alone."""

    folder: tyro.conf.Positional[Path]
    """Folder of a run, a study or a diagnosis."""

    def __call__(self) -> None:
        from resnetlab.cli.study import report_study
        from resnetlab.records.diagnosis import DIAGNOSIS
        from resnetlab.records.study_diagnosis import STUDY_DIAGNOSIS
        from resnetlab.train.folder import RECIPE

        if (self.folder / RECIPE).is_file():
            report_run(self.folder)
        elif (self.folder / DIAGNOSIS).is_file():
            report_diagnosis(self.folder)
        elif (self.folder / STUDY_DIAGNOSIS).is_file():
            report_study_diagnosis(self.folder)
        else:
            report_study(self.folder)


def report_run(folder: Path) -> None:
    """Draw the page of the run in ``folder`` again. Raises ``DataError`` where it has not ended or is damaged."""
    from resnetlab.core.serialize import read_record
    from resnetlab.records.run import RunRecord
    from resnetlab.report.run.page import read_report, write_run_report
    from resnetlab.train.folder import RECORD
    from resnetlab.train.recipe import recipe_command

    if not (folder / RECORD).is_file():
        raise DataError(f"the run in {folder} has not ended (it has no {RECORD}); resume it: --resume auto")
    record = read_record(RunRecord, folder / RECORD)
    command = recipe_command(record.recipe)
    write_run_report(record, read_report(folder), command, folder)
    print_run(record, folder)


def report_diagnosis(folder: Path) -> None:
    """Draw the page of the diagnosis in ``folder`` again. Raises ``DataError`` where it is damaged."""
    from resnetlab.cli.diagnose import print_diagnosis
    from resnetlab.records.diagnosis import DIAGNOSIS, read_diagnosis
    from resnetlab.report.diagnosis.page import write_diagnosis_report

    diagnosis = read_diagnosis(folder / DIAGNOSIS)
    print_diagnosis(diagnosis, write_diagnosis_report(diagnosis, folder))


def report_study_diagnosis(folder: Path) -> None:
    """Draw the page of the study's diagnosis in ``folder`` again. Raises ``DataError`` where it is damaged."""
    from resnetlab.cli.diagnose import print_study_diagnosis
    from resnetlab.records.study_diagnosis import STUDY_DIAGNOSIS, read_study_diagnosis
    from resnetlab.report.study.diagnosis import write_study_diagnosis_report

    diagnosis = read_study_diagnosis(folder / STUDY_DIAGNOSIS)
    print_study_diagnosis(diagnosis, write_study_diagnosis_report(diagnosis, folder))


VERBS: dict[str, Callable[..., Any]] = {
    "list": List,
    "info": Info,
    "plan": Plan,
    "recipes": Recipes,
    "train": Train,
    "find-lr": FindLr,
    "evaluate": Evaluate,
    "predict": Predict,
    "diagnose": Diagnose,
    "study": StudyCommand,
    "report": Report,
    "failures": Failures,
    "export": Export,
    "verify": Verify,
    "serve": Serve,
    "push": Push,
    "pull": Pull,
    "weights": weights,
    "data": Data,
}


def run_verb(words: list[str]) -> None:
    """Read the words of a command and do it."""
    if all(word.isprintable() for word in words):
        read_command(words)()
        return
    # tyro repeats wrong words as they are, so what it says is escaped like all else.
    said = StringIO()
    try:
        with redirect_stderr(said):
            command = read_command(words)
    finally:
        show(*said.getvalue().splitlines(), errors=True)
    command()


def read_command(words: list[str]) -> Callable[[], None]:
    """The command that the words give. tyro answers wrong ones with exit code 2 and the nearest right name."""
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise unknown_name("command", words[0], VERBS)
    kind = VERBS[words[0]] if words and words[0] in VERBS else None
    if isinstance(kind, type) and issubclass(kind, WithRecipe):
        return kind.read(words[1:], f"resnetlab {words[0]}")  # type: ignore[return-value]  # each can be called
    verb: Callable[[], None] = tyro.extras.subcommand_cli_from_dict(
        VERBS,
        prog="resnetlab",
        description="Build, train and explain plain and residual networks.",
        args=words,
    )
    return verb

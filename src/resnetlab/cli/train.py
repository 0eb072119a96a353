"""``resnetlab train``: one run in one folder."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from resnetlab.cli.recipe_args import WithRecipe
from resnetlab.cli.tables import show
from resnetlab.core.config import quote
from resnetlab.core.errors import ConfigError, DivergedError, StoppedError
from resnetlab.records.run import RunRecord
from resnetlab.train.folder import RECIPE
from resnetlab.train.recipe import recipe_text

if TYPE_CHECKING:
    from resnetlab.cli.progress import RunProgress
    from resnetlab.train.callbacks import Callback

OUT = Path("runs/train")


@dataclass(frozen=True, kw_only=True)
class Train(WithRecipe):
    """Train one network; the run folder keeps checkpoints, metrics and the record.

    RECIPE is a YAML file of settings; flags override it. Ctrl-C, SIGTERM or a terminal that closes saves the step that
    was reached.
    """

    out: Path | None = None
    """Folder of the run: a new or empty one, or one to resume. By default runs/train, or what --resume names."""
    resume: Literal["never", "auto"] | Path = "never"
    """auto resumes from the last checkpoint in the folder, bit for bit, and begins where there is none. The folder
    of a run resumes it with its own recipe."""
    log: Literal["none", "tensorboard"] = "none"
    """tensorboard writes its event files to tensorboard/ in the run folder (extra track)."""
    accept_changes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Resume with another recipe, or other data, than the run began with; the record says what was changed and when."""
    quiet: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print only the result, and errors."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print one JSON object a line on standard output, for each note, each epoch and the result, and nothing else."""
    print_config: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print every setting of the recipe as YAML, and do nothing else."""

    def __call__(self) -> None:
        if self.print_config:
            show(*recipe_text(self.recipe).splitlines())
            return
        folder = self.folder()
        record = self.run_in(folder)
        if record.status == "diverged":
            raise DivergedError(record.message)

    def folder(self) -> Path:
        """Where the run is. Raises ``ConfigError`` where --out and --resume name two folders."""
        if not isinstance(self.resume, Path):
            return self.out or OUT
        if self.out not in (None, self.resume):
            raise ConfigError(
                f"--out {self.out} is not possible with --resume {self.resume}: a run resumes in its own folder"
            )
        return self.resume

    def run_in(self, folder: Path) -> RunRecord:
        """Train in the folder and print the result; of several ranks only the leading one prints."""
        with ending_at_once():
            import torch._dynamo  # noqa: F401  # the first optimizer would load it

            from resnetlab.train.distributed import restarted_by_torchrun
            from resnetlab.train.run import run_recipe
            from resnetlab.train.signals import stop_on_signals

        resume = self.resume != "never" or restarted_by_torchrun()
        try:
            with ExitStack() as stack:
                stop = stack.enter_context(stop_on_signals())
                progress, callback, on_progress = self.watch(folder, stack)
                record = run_recipe(
                    self.recipe,
                    folder,
                    resume=resume,
                    callback=callback,
                    stop=stop,
                    on_progress=on_progress,
                    accept_changes=self.accept_changes,
                )
        except StoppedError as error:
            raise StoppedError(f"{error}{how_to_resume(folder)}", error.signal) from error
        if leads():
            progress.on_result(record, folder)
        return record

    def watch(
        self, folder: Path, stack: ExitStack
    ) -> "tuple[RunProgress, Callback, Callable[[int, int], None] | None]":
        """What prints the result, the callback of the run, and the progress of reading data."""
        from resnetlab.cli.progress import Bars, make_progress, progress_of
        from resnetlab.train.callbacks import CallbackList, NoCallback

        progress = make_progress(self.quiet, self.json)
        if not leads():
            return progress, NoCallback(), None
        stack.enter_context(progress)
        reading = None
        if isinstance(progress, Bars):
            reading = stack.enter_context(progress_of("reading images", bars=progress))
        if self.log == "none":
            return progress, progress, reading

        from resnetlab.train.callbacks import FOLDER, TensorBoard

        return progress, CallbackList(progress, stack.enter_context(TensorBoard(folder / FOLDER))), reading


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process while libraries load, when there is nothing to save: an import that it cuts off fails
    in ways of its own (numpy recurses, torch aborts). A shell still says 130."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def leads() -> bool:
    """Whether this process prints: alone, or the leading one of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def how_to_resume(folder: Path) -> str:
    """The command that resumes the run in the folder; nothing where it was not begun."""
    if not (folder / RECIPE).is_file():
        return ""
    return f"; to resume: resnetlab train --resume {quote(str(folder))}"

"""``resnetlab train``: one run in one folder."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from resnetlab.cli.recipe_args import OpenRecipe
from resnetlab.cli.tables import show
from resnetlab.cli.tune import free_main_thread, tuning_line
from resnetlab.core.config import quote
from resnetlab.core.errors import ConfigError, DivergedError, StoppedError, require
from resnetlab.records.run import RunRecord
from resnetlab.train.folder import RECIPE
from resnetlab.train.recipe import Recipe, recipe_text

if TYPE_CHECKING:
    from resnetlab.cli.progress import RunProgress
    from resnetlab.train.callbacks import Callback

OUT = Path("runs/train")


@dataclass(frozen=True, kw_only=True)
class Train(OpenRecipe):
    """Train one network; the run folder keeps checkpoints, metrics and the record.

    RECIPE is a YAML file of settings, or the name of a shipped one; flags override it. Without it, --data FOLDER alone
    will do for images in files: what is left open suits them. Ctrl-C, SIGTERM or a terminal that closes saves the step
    that was reached.
    """

    out: Path | None = None
    """Folder of the run: a new or empty one, or one to resume. By default runs/train, or what --resume names."""
    resume: Literal["never", "auto"] | Path = "never"
    """auto resumes from the last checkpoint in the folder, bit for bit, and begins where there is none. The folder
    of a run resumes it with its own recipe."""
    time: str | None = None
    """Time that there is, such as 90s, 10m or 2h: choose as many epochs as fit on this machine, and for images in files
    a smaller size where they would be few."""
    tune: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin with what makes this machine train faster: on a CPU tcmalloc, where it is installed, and threads that stay
    on their cores, with the same bits; on cuda cuDNN's search for the fastest kernels, whose bits may differ."""
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
            show(*recipe_text(self.settled()[0]).splitlines())
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

    def resumed(self) -> Path | None:
        folder = self.folder()
        waits = self.resume == "auto" or int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
        begun = self.file is None and (self.resume == folder or waits) and (folder / RECIPE).is_file()
        return folder if begun else None

    def settled(self, on_progress: "Callable[[int, int], None] | None" = None) -> tuple[Recipe, list[str]]:
        """As ``OpenRecipe.settled``; with --time and --lr auto what trials on this machine say, too."""
        recipe, lines = super().settled()
        if self.time is not None and self.resumed() is None:
            from resnetlab.train.defaults import suits
            from resnetlab.train.trials import fit_into

            if self.file is not None or "epochs" in self.given:
                raise ConfigError("--time chooses the epochs; give it without a recipe, and without --epochs")
            smaller = self.choose and suits(recipe.data) and "image_size" not in self.given
            recipe, line = fit_into(recipe, seconds_of(self.time), smaller=smaller, on_progress=on_progress)
            lines = [*(one for one in lines if not one.startswith("epochs ")), line]
        if self.auto_lr:
            from resnetlab.train.trials import find_rate

            recipe, line = find_rate(recipe, on_progress)
            lines = [*(one for one in lines if not one.startswith("lr ")), line]
        return recipe, lines

    def run_in(self, folder: Path) -> RunRecord:
        """Train in the folder and print the result; of several ranks only the leading one prints."""
        with ending_at_once():
            import torch
            import torch._dynamo  # the first optimizer would load it

            from resnetlab.train.distributed import restarted_by_torchrun
            from resnetlab.train.run import run_recipe
            from resnetlab.train.signals import stop_on_signals

        free_main_thread()
        resume = self.resume != "never" or restarted_by_torchrun()
        try:
            with ExitStack() as stack:
                stop = stack.enter_context(stop_on_signals())
                progress, callback, on_progress = self.watch(folder, stack)
                if self.tune:
                    torch.backends.cudnn.benchmark = True
                    callback.on_note(tuning_line())
                recipe, chosen = self.settled(on_progress)
                record = run_recipe(
                    recipe,
                    folder,
                    resume=resume,
                    callback=callback,
                    stop=stop,
                    on_progress=on_progress,
                    accept_changes=self.accept_changes,
                    chosen=chosen,
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


def seconds_of(text: str) -> float:
    """The seconds of ``90s``, ``10m``, ``2h`` or ``90``. Raises ``ConfigError`` for another text, and for none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    seconds = float(found[1]) * {"m": 60, "h": 3600}.get(found[2], 1) if found else 0.0
    require(seconds > 0, "time", text, "a time such as 90s, 10m or 2h")
    return seconds


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

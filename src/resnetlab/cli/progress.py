"""Progress on the terminal: a bar with the time left, or one line an epoch or run where the output is no terminal."""

import sys
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from resnetlab.records import EpochRecord, RunRecord
from resnetlab.study import PlannedRun
from resnetlab.train.logs import Pulse, Silent, Watcher

LONG_EPOCH = 5.0
"""Seconds from which on each epoch of a study gets a line of its own where there is no terminal."""


class Bars:
    """Bars on standard error, gone when done; a line printed meanwhile goes above them."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_note(self, text: str) -> None:
        """Pass on what a user should know."""
        self.say(f"note: {text}")

    def say(self, line: str) -> None:
        """Print a line at once, unwrapped, as it is. Training goes on where nobody reads it any more."""
        with suppress(BrokenPipeError):
            if self.console.is_terminal:
                self.console.print(line, markup=False, soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)


class Counting(Bars):
    """Bars for work that is counted in pictures."""

    def counter(self, description: str) -> Callable[[int, int], None]:
        """A bar that appears with the first picture, and the function that moves it: (done, all)."""
        bar: list[TaskID] = []

        def on_progress(done: int, total: int) -> None:
            if not bar:
                bar.append(self.progress.add_task(description, total=total))
            self.progress.update(bar[0], completed=done, total=total)

        return on_progress


class TrainingProgress(Bars):
    """Watches one run: a bar over its steps and a line an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: TaskID | None = None

    def on_step(self, step: int, steps: int, pulse: Pulse | None) -> None:  # noqa: ARG002
        """Move the bar."""
        if self.bar is None:
            self.bar = self.progress.add_task("training", total=steps, completed=step)
        self.progress.update(self.bar, completed=step)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """Say what the epoch gave."""
        self.say(
            f"epoch {record.epoch}/{epochs}  train loss {record.train.loss:.4f} error {record.train.error:.2%}  "
            f"test loss {record.test.loss:.4f} error {record.test.error:.2%}  {record.seconds:.1f} s"
        )


class StudyProgress(Bars):
    """Watches a study: a bar over all its steps' share of runs and a line a run."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: TaskID | None = None
        self.place = ""

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Watcher:
        """Name the run on the bar and let it move with the run's steps."""
        if self.bar is None:
            self.bar = self.progress.add_task("", total=total, completed=number - 1)
        self.place = f"[{number}/{total}] {run.recipe.model} seed {run.seed}"
        self.progress.update(self.bar, description=self.place, completed=number - 1)
        return _Within(self, self.bar, number - 1, self.place)

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:  # noqa: ARG002, the place was noted at its start
        """Say what the run gave."""
        final = record.final
        result = f"train error {final.train.error:.2%}  test error {final.test.error:.2%}" if final else record.message
        self.say(f"{self.place}  {result}  {record.seconds:.1f} s")


class _Within(Silent):
    """Moves the study's bar by the share of the current run that is done."""

    def __init__(self, bars: Bars, bar: TaskID, before: int, place: str) -> None:
        self.bars, self.bar, self.before, self.place = bars, bar, before, place

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        # A bar shows that something happens; where there is none, a line does, unless runs are short.
        if not self.bars.console.is_terminal and record.seconds > LONG_EPOCH:
            self.bars.say(f"{self.place}  epoch {record.epoch}/{epochs}  train error {record.train.error:.2%}")

    def on_note(self, text: str) -> None:
        self.bars.on_note(text)

    def on_step(self, step: int, steps: int, pulse: Pulse | None) -> None:  # noqa: ARG002
        self.bars.progress.update(self.bar, completed=self.before + step / steps)

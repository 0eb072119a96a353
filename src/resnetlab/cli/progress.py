"""Progress on the terminal: a bar with the time left, or one line an epoch or run where the output is no terminal."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from resnetlab.cli.tables import print_run, show
from resnetlab.core.errors import ConfigError, printable
from resnetlab.core.serialize import as_plain
from resnetlab.records.run import EpochRecord, RunRecord
from resnetlab.train.callbacks import Callback, NoCallback, StepStats

if TYPE_CHECKING:
    from resnetlab.study import PlannedRun

SPEAK_EVERY = 30.0
"""Seconds without a line, in training without a terminal, after which there is one."""
COUNT_EVERY = 10.0
"""The same where files are counted."""
PATIENCE = 2.0
"""Seconds that work may take without a bar."""
LONG_EPOCH = 5.0
"""Seconds from which on each epoch of a study gets a line of its own where there is no terminal."""


class Bars:
    """Bars on standard error, gone when done; a line printed meanwhile goes above them."""

    def __init__(self, *columns: ProgressColumn) -> None:
        self.console = Console(stderr=True, highlight=False, emoji=False)
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            *columns,
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
        with suppress(OSError):  # the terminal was closed
            self.progress.stop()

    def on_note(self, text: str) -> None:
        """Print what a user should know."""
        self.say(f"note: {text}")

    def say(self, line: str) -> None:
        """Print a line at once, unwrapped, as it is. Training continues where nobody reads it any more."""
        if not self.console.is_terminal:
            show(line, errors=True)
            return
        with suppress(OSError):  # the terminal was closed
            self.console.print(printable(line), markup=False, soft_wrap=True)


class TrainingProgress(Bars):
    """The progress of a run: a bar over its steps and a line an epoch; without a terminal, lines in long epochs too."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        super().__init__(TextColumn("{task.fields[stats]}"))
        self.bar: TaskID | None = None
        self.clock = clock
        self.epoch = ""
        self.stats: StepStats | None = None
        self.first, self.began, self.spoke = 0, 0.0, 0.0

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:
        """Move the bar, or print now and then how far training is."""
        if self.bar is None:
            self.first, self.began = step, self.clock()
            self.spoke = self.began
            # A resumed run begins in an epoch whose number the first line will tell.
            self.epoch = "epoch 1" if step == 1 else "training"
            self.bar = self.progress.add_task(self.epoch, total=steps, completed=step, stats="")
        self.stats = stats or self.stats
        self.progress.update(self.bar, completed=step, stats=describe(self.stats) if self.stats else "")
        if not self.console.is_terminal and self.clock() - self.spoke >= SPEAK_EVERY:
            self.spoke = self.clock()
            left = time_left(step - self.first, steps - self.first, self.spoke - self.began)
            known = [
                self.epoch,
                f"step {step}/{steps}",
                *([describe(self.stats)] if self.stats else []),
                f"{left} left",
            ]
            self.say("  ".join(known))

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """Print the figures of the epoch."""
        self.say(epoch_line(record, epochs))
        self.epoch = f"epoch {min(record.epoch + 1, epochs)}/{epochs}"
        self.spoke = self.clock()
        if self.bar is not None:
            self.progress.update(self.bar, description=self.epoch)

    def on_result(self, record: RunRecord, out: Path) -> None:
        """Print the result of the run."""
        print_run(record, out)


class QuietProgress(NoCallback):
    """Prints the result of a run and nothing before it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def on_result(self, record: RunRecord, out: Path) -> None:
        """Print the result of the run."""
        print_run(record, out)


class JsonProgress(QuietProgress):
    """Prints a run as JSON lines on standard output, each an object whose ``event`` is note, epoch or result."""

    def on_note(self, text: str) -> None:
        self._tell("note", text=text)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        self._tell("epoch", epochs=epochs, **as_plain(record))

    def on_result(self, record: RunRecord, out: Path) -> None:
        """Print the result: the last epoch and the best one on each split, null for a run that diverged."""
        final = record.final
        self._tell(
            "result",
            folder=str(out),
            model=record.model,
            parameters=record.parameters,
            status=record.status,
            message=record.message,
            epochs=len(record.history),
            validation=as_plain(final.validation) if final else None,
            test=as_plain(final.test) if final else None,
            best=as_plain(record.best) if final else None,
            seconds=record.seconds,
        )

    def _tell(self, event: str, **content: Any) -> None:
        show(json.dumps({"event": event, **content}, allow_nan=False))


class RunProgress(Callback, Protocol):
    """The callback of a command: it prints the result too."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def on_result(self, record: RunRecord, out: Path) -> None:
        """The run in the folder ``out`` is recorded."""


def make_progress(quiet: bool, json_lines: bool) -> RunProgress:
    """The callback of a run that a command asks for. Raises ``ConfigError`` for both at once."""
    if quiet and json_lines:
        raise ConfigError("--quiet and --json exclude each other; --json is quiet on standard error as it is")
    if json_lines:
        return JsonProgress()
    return QuietProgress() if quiet else TrainingProgress()


@contextmanager
def progress_of(
    label: str, clock: Callable[[], float] = monotonic, bars: Bars | None = None
) -> Iterator[Callable[[int, int], None]]:
    """A function ``on_progress(done, total)`` that shows how far some work is, such as reading a folder of images.

    On a terminal a bar, from the moment that the work takes longer than 2 s; else a line at most every 10 s. ``bars``
    are those that are shown already: a terminal has room for one display.
    """
    shown = bars or Bars()
    began = spoke = clock()
    task: TaskID | None = None

    def on_progress(done: int, total: int) -> None:
        nonlocal task, spoke
        now = clock()
        if not shown.console.is_terminal:
            if now - spoke >= COUNT_EVERY:
                spoke = now
                share = f" ({done / total:.0%})" if total else ""
                shown.say(f"{label}: {done}/{total}{share}, {time_left(done, total, now - began)} left")
        elif task is not None:
            shown.progress.update(task, completed=done, total=total)
        elif now - began >= PATIENCE:
            shown.progress.start()
            task = shown.progress.add_task(label, total=total, completed=done, stats="")
        if task is not None and done >= total:
            shown.progress.update(task, visible=False)

    try:
        yield on_progress
    finally:
        if bars is None:
            shown.progress.stop()


def epoch_line(record: EpochRecord, epochs: int) -> str:
    """The figures of an epoch in one line; the running ones where the training images were not evaluated."""
    if record.train:
        train = f"train loss {record.train.loss:.4f} error {record.train.error:.2%}"
    else:
        error = "" if record.running_error is None else f" error {record.running_error:.2%}"
        train = f"running loss {record.running_loss:.4f}{error}"
    splits = (("validation", record.validation), ("test", record.test))
    evaluated = [f"{name} loss {m.loss:.4f} error {m.error:.2%}" for name, m in splits if m is not None]
    return "  ".join([f"epoch {record.epoch}/{epochs}", train, *evaluated, f"{record.seconds:.1f} s"])


def train_error(record: EpochRecord) -> str:
    """The training error in words, or the running loss where the training set was not evaluated."""
    if record.train:
        return f"train error {record.train.error:.2%}"
    return f"running loss {record.running_loss:.4f}"


def describe(stats: StepStats) -> str:
    """Loss, accuracy and speed of training, in one line."""
    return f"loss {stats.loss:.4f}  accuracy {1 - stats.error:.1%}  {stats.images_per_second:,.0f} images/s"


def time_left(done: int, total: int, seconds: float) -> str:
    """The time left at the speed so far, as h:mm:ss."""
    return str(timedelta(seconds=round(seconds / done * (total - done)))) if done > 0 else "unknown time"


class StudyProgress(Bars):
    """The progress of a study: a table of its conditions and a bar over all its runs, or a line a run."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: TaskID | None = None
        self.total = 0
        self.places: dict[str, str] = {}
        self.shares: dict[str, float] = {}
        """How much of each run under way is done: several are on a cluster."""
        self.rows: dict[tuple[str, ...], Row] = {}
        self.axes: tuple[str, ...] = ()
        # Table and bar are one display: a terminal has room for no second.
        self.live = Live(get_renderable=self._draw, console=self.console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # the terminal was closed
            self.live.stop()

    def on_plan(self, planned: Sequence["PlannedRun"], ended: Mapping[str, RunRecord]) -> None:
        """Make a row for each condition, with what has ended before; the runs that judge come after those that tune."""
        self.axes, self.rows = tuple(planned[0].words), {}
        if self.bar is not None:
            self.progress.remove_task(self.bar)
            self.bar = None
        for run in planned:
            row = self.rows.setdefault(tuple(run.words.values()), Row())
            row.planned += 1
            if run.name in ended:
                row.add(ended[run.name])

    def on_run_start(self, run: "PlannedRun", number: int, total: int) -> Callback:
        """Name the run on the bar and let it move with the run's steps."""
        self.places[run.name] = place(run, number, total)
        self.total = total
        self.move(run.name, 0.0)
        return _Within(self, run.name, self.places[run.name])

    def move(self, name: str, share: float) -> None:
        """Note how much of the run ``name`` is done, and move the bar to what is done of all."""
        self.shares[name] = share
        ended = sum(len(row.records) for row in self.rows.values())
        if self.bar is None:
            self.bar = self.progress.add_task("", total=self.total)
        self.progress.update(self.bar, description=self.places[name], completed=ended + sum(self.shares.values()))

    def on_run_end(self, run: "PlannedRun", record: RunRecord) -> None:
        """Say what the run gave."""
        self.shares.pop(run.name, None)
        self._count(run, self.places[run.name], record)

    def on_found(self, run: "PlannedRun", number: int, total: int, record: RunRecord) -> None:
        """Say what a run of another worker gave."""
        self._count(run, place(run, number, total), record)

    def _count(self, run: "PlannedRun", where: str, record: RunRecord) -> None:
        if (row := self.rows.get(tuple(run.words.values()))) is not None:
            row.add(record)
        if not self.console.is_terminal:
            final = record.final
            result = (
                f"{train_error(final)}  {final.reported_split} error {final.reported.error:.2%}"
                if final
                else record.message
            )
            self.say(f"{where}  {result}  {record.seconds:.1f} s")

    def _draw(self) -> Group:
        table = Table(*self.axes, "done", "mean training error", "mean test error", box=None, pad_edge=False)
        for values, row in self.rows.items():
            table.add_row(*(Text(printable(text)) for text in (*values, *row.texts())))
        return Group(table, self.progress)


class Row:
    """What is known of one condition so far."""

    def __init__(self) -> None:
        self.planned = 0
        self.records: list[RunRecord] = []

    def add(self, record: RunRecord) -> None:
        """Count a run that has ended."""
        self.records.append(record)

    def texts(self) -> tuple[str, str, str]:
        """How many runs have ended, and their mean errors."""
        final = [record.final for record in self.records if record.final]
        lost = len(self.records) - len(final)
        done = f"{len(self.records)}/{self.planned}" + (f" ({lost} diverged)" if lost else "")
        if not final:
            return done, "", ""
        train, test = ([epoch.trained.error for epoch in final], [epoch.reported.error for epoch in final])
        return done, f"{fmean(train):.2%}", f"{fmean(test):.2%}"


class _Within(NoCallback):
    """Moves the study's bar by the share of the run that is done."""

    def __init__(self, bars: StudyProgress, name: str, place: str) -> None:
        self.bars, self.name, self.place = bars, name, place

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        # A bar shows that something happens; where there is none, a line does, unless runs are short.
        if not self.bars.console.is_terminal and record.seconds > LONG_EPOCH:
            self.bars.say(f"{self.place}  epoch {record.epoch}/{epochs}  {train_error(record)}")

    def on_note(self, text: str) -> None:
        self.bars.on_note(text)

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:  # noqa: ARG002
        self.bars.move(self.name, step / steps)


def place(run: "PlannedRun", number: int, total: int) -> str:
    """Which run of how many."""
    return printable(f"[{number}/{total}] {run.label}, seed {run.seed}")

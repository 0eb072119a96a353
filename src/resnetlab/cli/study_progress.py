"""Progress of a study: on a terminal a table that fills while runs end, elsewhere a line a run."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from types import TracebackType
from typing import Self

from rich.console import Group
from rich.live import Live
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from resnetlab.cli.progress import Bars, train_error
from resnetlab.records.run import EpochRecord, RunRecord
from resnetlab.study import PlannedRun
from resnetlab.train.callbacks import Callback, NoCallback, StepStats

LONG_EPOCH = 5.0
"""Seconds from which on each epoch of a study gets a line of its own where there is no terminal."""


class StudyProgress(Bars):
    """The progress of a study: a table of its conditions and a bar over all its runs, or a line a run."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: TaskID | None = None
        self.place = ""
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
        self.live.stop()

    def on_plan(self, planned: Sequence[PlannedRun], ended: Mapping[str, RunRecord]) -> None:
        """Make a row for each condition, with what has ended before."""
        self.axes = tuple(planned[0].words)
        for run in planned:
            row = self.rows.setdefault(tuple(run.words.values()), Row())
            row.planned += 1
            if run.name in ended:
                row.add(ended[run.name])

    def on_run_start(self, run: PlannedRun, number: int, total: int) -> Callback:
        """Name the run on the bar and let it move with the run's steps."""
        if self.bar is None:
            self.bar = self.progress.add_task("", total=total, completed=number - 1)
        self.place = place(run, number, total)
        self.progress.update(self.bar, description=self.place, completed=number - 1)
        return _Within(self, self.bar, number - 1, self.place)

    def on_run_end(self, run: PlannedRun, record: RunRecord) -> None:
        """Say what the run gave."""
        self._count(run, self.place, record)

    def on_found(self, run: PlannedRun, number: int, total: int, record: RunRecord) -> None:
        """Say what a run of another worker gave."""
        self._count(run, place(run, number, total), record)

    def _count(self, run: PlannedRun, where: str, record: RunRecord) -> None:
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
            table.add_row(*map(Text, (*values, *row.texts())))
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
    """Moves the study's bar by the share of the current run that is done."""

    def __init__(self, bars: Bars, bar: TaskID, before: int, place: str) -> None:
        self.bars, self.bar, self.before, self.place = bars, bar, before, place

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        # A bar shows that something happens; where there is none, a line does, unless runs are short.
        if not self.bars.console.is_terminal and record.seconds > LONG_EPOCH:
            self.bars.say(f"{self.place}  epoch {record.epoch}/{epochs}  {train_error(record)}")

    def on_note(self, text: str) -> None:
        self.bars.on_note(text)

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:  # noqa: ARG002
        self.bars.progress.update(self.bar, completed=self.before + step / steps)


def place(run: PlannedRun, number: int, total: int) -> str:
    """Which run of how many."""
    return f"[{number}/{total}] {run.label}, seed {run.seed}"

"""The checkpoints of a run: last/, best/ and top/, when they are written and how a run resumes; and metrics.jsonl.

Training waits only while its state is copied; a thread writes the copy. A checkpoint that is the last and the best one
lies on the disk once, under both names.
"""

import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from math import inf
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import torch

from resnetlab.core.errors import StorageError
from resnetlab.core.files import folder_exists, read_folder, replace_folder, share_folder
from resnetlab.records.run import EpochRecord, ReportedSplit, rank_epochs
from resnetlab.train.callbacks import Callback, write_metrics
from resnetlab.train.checkpoint import FILES, Checkpoint, RunSettings, pack, snapshot, unpack
from resnetlab.train.compile import COMPILED
from resnetlab.train.config import TrainConfig
from resnetlab.train.distributed import share_bytes, world
from resnetlab.train.prepare import environment_of
from resnetlab.train.recipe import changed_settings
from resnetlab.train.state import TrainingState

LAST, BEST, TOP, METRICS = "last", "best", "top", "metrics.jsonl"
BITS_DEPEND_ON = ("torch", "processor", "device", "threads", "ranks")


class CheckpointManager:
    """Saves ``state`` in the folder ``out``, as the settings say; of several ranks only the leading one writes.

    With ``chooses`` the best epoch is that of the best metrics on validation, else the last one. Without a folder
    nothing is saved. ``settings`` go into every checkpoint.

    What is saved is on the disk after ``wait``, or when the ``with`` block ends, however it ends: that also writes what
    was held back for ``save_every_seconds``. An error of the thread that writes is raised by the next save, by ``wait``
    or by the end of the block.
    """

    def __init__(
        self,
        out: Path | None,
        config: TrainConfig,
        state: TrainingState,
        device: torch.device,
        *,
        chooses: bool,
        settings: RunSettings | None = None,
    ) -> None:
        self.out = out
        self.config = config
        self.state = state
        self.chosen_by: ReportedSplit | None = "validation" if chooses else None
        self.environment = environment_of(device)
        self.settings = settings or RunSettings()
        self._held: dict[str, Checkpoint] = {}
        """What is still to be written, by folder, in this order: ``last/`` says that ``best/`` was written too."""
        self._writing: Future[None] | None = None
        self._spare: Checkpoint | None = None
        """The last one that was written, whose memory the next one takes."""
        self._wrote, self._lines = -inf, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StorageError):
            # A disk that has refused is not asked again.
            self._held.clear()
        self.wait()

    @property
    def saves(self) -> bool:
        """Whether this process writes."""
        return self.out is not None and world().leads

    def resume(self, callback: Callback) -> None:
        """Restore the last checkpoint that is whole, if there is one; every rank that of the leading one."""
        checkpoint = self.read(LAST)
        if checkpoint is None or self.out is None:
            return
        self.state.restore(checkpoint)
        if checkpoint.origin == self.out / f"{LAST}.previous":
            callback.on_note(f"{self.out / LAST} is damaged or missing; resuming from {checkpoint.origin}")
        for key in BITS_DEPEND_ON:
            before, now = checkpoint.environment.get(key), self.environment.get(key)
            if before != now:
                callback.on_note(f"{key} was {before} and is {now}: the run resumes, but not to the same bits")
        self._note_changes(checkpoint, callback)
        if self.config.compile and COMPILED in checkpoint.settings.values:
            self.settings.values[COMPILED] = checkpoint.settings.values[COMPILED]
        # A kill between checkpoint and metrics left a line out.
        self.write_metrics()

    def _note_changes(self, checkpoint: Checkpoint, callback: Callback) -> None:
        """Tell, and keep, what is set otherwise than when the checkpoint was made."""
        self.settings.changes[:] = checkpoint.settings.changes
        changed = changed_settings(checkpoint.settings.values, self.settings.values)
        if changed:
            text = f"changed after epoch {len(checkpoint.history)}, step {checkpoint.step}: {', '.join(changed)}"
            callback.on_note(f"{text}; the run resumes with the new settings, so no one recipe gives its result")
            self.settings.changes.append(text)

    def read(self, which: str) -> Checkpoint | None:
        """A checkpoint that the leading rank reads for all; None where there is none."""
        self.wait()
        origin, files = None, dict.fromkeys(FILES, b"")
        if self.out is not None and world().leads and folder_exists(self.out / which):
            origin, files = read_folder(self.out / which, fall_back=True)
        shared = share_bytes(None if origin is None else str(origin).encode())
        if shared is None:
            return None
        return unpack({name: share_bytes(files.get(name)) or b"" for name in FILES}, Path(shared.decode()))

    def write_metrics(self) -> None:
        """Write the history to ``metrics.jsonl``."""
        if self.saves and self.out is not None:
            write_metrics(self.out / METRICS, self.state.history)

    def ranking(self, history: list[EpochRecord]) -> list[EpochRecord]:
        """The epochs from best to worst."""
        return rank_epochs(history, self.config.best_by, self.chosen_by)

    def epochs_without_best(self, history: list[EpochRecord]) -> int:
        """Epochs since the best one."""
        return len(history) - self.ranking(history)[0].epoch if history else 0

    def wait(self) -> None:
        """Wait until all that was saved is on the disk."""
        self._join()
        if self._held:
            self._begin_writing()
            self._join()

    def save_within_epoch(self) -> None:
        """Save the step that was reached, unless a loss or a weight is not finite: no state to resume from."""
        if self.out is None:
            return
        # Every rank takes part: their losses are added up.
        checkpoint = self.state.to_checkpoint(self.environment, self.settings)
        finite = bool(checkpoint.training["epoch/losses"].isfinite().all()) and self.state.is_finite()
        if self.saves and finite:
            self._held.pop(LAST, None)
            self._held[LAST] = self._snapshot(checkpoint)
            self._begin_writing()

    def end_epoch(self) -> None:
        """Save the epoch, or hold it back where the last save is not ``save_every_seconds`` ago."""
        if not self.saves or self.out is None:
            return
        checkpoint = self._snapshot(self.state.to_checkpoint(self.environment, self.settings))
        history = self.state.history
        ranking = self.ranking(history)
        self._held.pop(LAST, None)
        if ranking[0] is history[-1]:
            self._held[BEST] = checkpoint
        if history[-1] in ranking[: self.config.keep_top]:
            self._held[_top(history[-1])] = checkpoint
        self._held[LAST] = checkpoint
        if self.config.keep_top or perf_counter() - self._wrote >= self.config.save_every_seconds:
            self._begin_writing()

    def _snapshot(self, checkpoint: Checkpoint) -> Checkpoint:
        spare, self._spare = self._spare, None
        return snapshot(checkpoint, spare)

    def _begin_writing(self) -> None:
        """Hand over what is held to a thread, when the one before has ended."""
        self._join()
        held, self._held, self._wrote = self._held, {}, perf_counter()
        thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing = thread.submit(self._write, held)
        thread.shutdown(wait=False)

    def _join(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, held: dict[str, Checkpoint]) -> None:
        assert self.out is not None
        written: dict[int, Path] = {}
        history = held[LAST].history
        for name, checkpoint in held.items():
            folder = self.out / name
            if name == LAST and self.config.keep_top:
                self._clear_top(history)
            if id(checkpoint) in written:
                share_folder(written[id(checkpoint)], folder)
            else:
                replace_folder(folder, pack(checkpoint))
                written[id(checkpoint)] = folder
        if len(history) > self._lines:
            write_metrics(self.out / METRICS, history)
            self._lines = len(history)
        self._spare = held[LAST]

    def _clear_top(self, history: list[EpochRecord]) -> None:
        assert self.out is not None
        wanted = {_top(record) for record in self.ranking(history)[: self.config.keep_top]}
        for folder in (self.out / TOP).iterdir() if (self.out / TOP).is_dir() else ():
            if f"{TOP}/{folder.name}" not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def _top(record: EpochRecord) -> str:
    return f"{TOP}/epoch-{record.epoch:04}"

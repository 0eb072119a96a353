"""The checkpoints of a run: last/, best/ and top/, when they are written and how a run resumes; and metrics.jsonl."""

import shutil
from pathlib import Path

import torch

from resnetlab.core.files import folder_exists, read_folder, replace_folder
from resnetlab.records.run import EpochRecord, ReportedSplit, rank_epochs
from resnetlab.train.callbacks import Callback, write_metrics
from resnetlab.train.checkpoint import FILES, Checkpoint, RunSettings, pack, unpack
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

    def save_within_epoch(self) -> None:
        """Save the step that was reached, unless a loss or a weight is not finite: no state to resume from."""
        if self.out is None:
            return
        # Every rank takes part: their losses are added up.
        checkpoint = self.state.to_checkpoint(self.environment, self.settings)
        finite = bool(checkpoint.training["epoch/losses"].isfinite().all()) and self.state.is_finite()
        if self.saves and finite:
            replace_folder(self.out / LAST, pack(checkpoint))

    def end_epoch(self) -> None:
        """Save the epoch. ``best/`` goes first: ``last/`` tells a resumed run that both were written."""
        if not self.saves or self.out is None:
            return
        files, history = pack(self.state.to_checkpoint(self.environment, self.settings)), self.state.history
        ranking = self.ranking(history)
        if ranking[0] is history[-1]:
            replace_folder(self.out / BEST, files)
        if self.config.keep_top:
            self._keep_top(files, ranking[: self.config.keep_top])
        replace_folder(self.out / LAST, files)
        self.write_metrics()

    def _keep_top(self, files: dict[str, bytes], best: list[EpochRecord]) -> None:
        assert self.out is not None
        newest = self.state.history[-1]
        if newest in best:
            replace_folder(self.out / TOP / _name(newest), files)
        wanted = {_name(record) for record in best}
        for folder in (self.out / TOP).iterdir() if (self.out / TOP).is_dir() else ():
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def _name(record: EpochRecord) -> str:
    return f"epoch-{record.epoch:04}"

"""What a run keeps on disk, when, and how it comes back: last/, best/, top/ and metrics.jsonl."""

import shutil
from pathlib import Path
from typing import Any

import torch

from resnetlab.core.environment import describe_environment
from resnetlab.core.files import folder_exists, read_folder, replace_folder
from resnetlab.records.run import EpochRecord, best_epoch, rank_epochs
from resnetlab.train.callbacks import Callback, write_metrics
from resnetlab.train.checkpoint import FILES, pack, unpack
from resnetlab.train.config import TrainConfig
from resnetlab.train.distributed import share_bytes, world
from resnetlab.train.state import TrainingState

LAST, BEST, TOP, METRICS = "last", "best", "top", "metrics.jsonl"
BITS_DEPEND_ON = ("torch", "processor", "device", "threads", "ranks")


class CheckpointManager:
    """Saves ``state`` in the folder ``out``, as the settings say; of several ranks the leading one alone does.

    Without a folder it does nothing.
    """

    def __init__(self, out: Path | None, config: TrainConfig, state: TrainingState, device: torch.device) -> None:
        self.out = out
        self.config = config
        self.state = state
        environment = describe_environment(str(device), torch.get_num_threads()) | {"ranks": world().size}
        self.environment: dict[str, Any] = environment

    @property
    def saves(self) -> bool:
        """Whether this process writes."""
        return self.out is not None and world().leads

    def resume(self, callback: Callback) -> None:
        """Go on from the last checkpoint that is whole, if there is one; every rank from the leading one's."""
        origin, files = None, dict.fromkeys(FILES, b"")
        if self.out is not None and world().leads and folder_exists(self.out / LAST):
            origin, files = read_folder(self.out / LAST, fall_back=True)
        shared = share_bytes(None if origin is None else str(origin).encode())
        if shared is None or self.out is None:
            return
        origin = Path(shared.decode())
        checkpoint = unpack({name: share_bytes(files.get(name)) or b"" for name in FILES}, origin)
        self.state.restore(checkpoint)
        if origin == self.out / f"{LAST}.previous":
            callback.on_note(f"{self.out / LAST} is damaged or missing; going on from {origin}, the one before it")
        for key in BITS_DEPEND_ON:
            before, now = checkpoint.environment.get(key), self.environment.get(key)
            if before != now:
                callback.on_note(f"{key} was {before} and is {now}: the run goes on, but not to the same bits")
        if self.saves:
            # A kill between checkpoint and metrics left a line out.
            write_metrics(self.out / METRICS, checkpoint.history)

    def save_within_epoch(self) -> None:
        """Keep the step that was reached, unless a loss or a weight of it is not finite: no state to go on from."""
        if self.out is None:
            return
        # Every rank takes part in it: their losses are added up.
        checkpoint = self.state.to_checkpoint(self.environment)
        finite = bool(checkpoint.training["epoch/losses"].isfinite().all()) and self.state.is_finite()
        if self.saves and finite:
            replace_folder(self.out / LAST, pack(checkpoint))

    def end_epoch(self) -> None:
        """Keep what the epoch left. ``best/`` goes first: ``last/`` tells a resumed run that both were written."""
        if not self.saves or self.out is None:
            return
        files, history = self._pack(), self.state.history
        ranking = rank_epochs(history, self.config.best_by)
        if ranking[0] is history[-1]:
            replace_folder(self.out / BEST, files)
        if self.config.keep_top:
            self._keep_top(files, ranking[: self.config.keep_top])
        replace_folder(self.out / LAST, files)
        write_metrics(self.out / METRICS, history)

    def _keep_top(self, files: dict[str, bytes], best: list[EpochRecord]) -> None:
        assert self.out is not None
        newest = self.state.history[-1]
        if newest in best:
            replace_folder(self.out / TOP / _name(newest), files)
        wanted = {_name(record) for record in best}
        for folder in (self.out / TOP).iterdir() if (self.out / TOP).is_dir() else ():
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)

    def _pack(self) -> dict[str, bytes]:
        return pack(self.state.to_checkpoint(self.environment))


def _name(record: EpochRecord) -> str:
    return f"epoch-{record.epoch:04}"


def epochs_without_best(history: list[EpochRecord], config: TrainConfig) -> int:
    """Epochs since the best one."""
    return len(history) - best_epoch(history, config.best_by).epoch if history else 0

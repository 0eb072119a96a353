"""Callbacks of a training run: what the loop tells them, step statistics, TensorBoard, and ``metrics.jsonl``."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from resnetlab.core.errors import load_extra
from resnetlab.core.files import atomic_write
from resnetlab.core.serialize import as_plain
from resnetlab.records.run import EpochRecord

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StepStats:
    """Loss and error (a share) of the latest steps, in training mode, and the speed of training."""

    loss: float
    error: float
    images_per_second: float


class Callback(Protocol):
    """Called by the training loop between steps; must not wait for the device."""

    def on_note(self, text: str) -> None:
        """Something a user should know, such as a damaged checkpoint that was passed over."""

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:
        """``step`` of ``steps`` of the whole run is done; now and then with statistics."""

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch was trained and evaluated; its checkpoint is being written, or is held back for a later save."""


class NoCallback:
    """A callback that does nothing."""

    def on_note(self, text: str) -> None:
        pass

    def on_step(self, step: int, steps: int, stats: StepStats | None) -> None:
        pass

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        pass


class CallbackList:
    """Several callbacks, called in their order."""

    def __init__(self, *callbacks: Callback) -> None:
        self.callbacks = callbacks

    def on_note(self, text: str) -> None:
        for callback in self.callbacks:
            callback.on_note(text)

    def on_step(self, step: int, steps: int, stats: StepStats | None = None) -> None:
        for callback in self.callbacks:
            callback.on_step(step, steps, stats)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        for callback in self.callbacks:
            callback.on_epoch(record, epochs)


def write_metrics(path: Path, history: list[EpochRecord]) -> None:
    """Write one JSON line an epoch. The file is written whole from the history of the checkpoint, so that after a crash
    and a resume no epoch is missing and none stands twice."""
    atomic_write(path, "".join(json.dumps(as_plain(record), allow_nan=False) + "\n" for record in history))


EVERY = 0.5
"""Seconds between two step statistics."""


class Meter:
    """Means over the steps since the last statistics, the first time since ``done`` steps of the epoch.

    A step has ``images`` images over all ``ranks``; loss and error are those of this rank's share of them.

    On a cuda device the means are copied to the CPU behind the steps that are queued, and read one stats later.
    """

    def __init__(self, images: int, *, ranks: int = 1, done: int = 0) -> None:
        self.images, self.ranks = images, ranks
        self.told, self.since = done, perf_counter()
        self.waiting: tuple[HostCopy, float] | None = None

    def stats(self, losses: "Tensor", wrong: "Tensor", done: int) -> StepStats | None:
        """The statistics after ``done`` steps of an epoch, from its losses and numbers of wrong answers; None where the
        last ones are less than ``EVERY`` seconds old."""
        import torch

        now = perf_counter()
        if now - self.since < EVERY or done <= self.told:
            return None
        steps = slice(self.told, done)
        share = self.images // self.ranks
        means = torch.stack([losses[steps].mean(), wrong[steps].double().mean() / share])
        speed = (done - self.told) * self.images / (now - self.since)
        self.told, self.since = done, now
        if means.is_cpu:
            return _step_stats(means, speed)
        before, self.waiting = self.waiting, (HostCopy(means), speed)
        return _step_stats(before[0].values, before[1]) if before and before[0].is_there() else None


class HostCopy:
    """A copy of a cuda tensor on the CPU, made behind what is queued on the device; nobody waits for it."""

    def __init__(self, values: "Tensor") -> None:
        import torch

        self.values = values.to("cpu", non_blocking=True)
        self.made = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.made.record()

    def is_there(self) -> bool:
        """Whether ``values`` are those of the device by now."""
        return bool(self.made.query())  # type: ignore[no-untyped-call]


def _step_stats(means: "Tensor", speed: float) -> StepStats:
    loss, error = means.tolist()
    return StepStats(loss=loss, error=error, images_per_second=speed)


FOLDER = "tensorboard"


class TensorBoard(NoCallback):
    """A callback that writes the scalars of every epoch to an event file in ``folder``; close it, or use ``with``.

    Nothing is written before the first epoch ends. A resumed run begins another file, which tells TensorBoard to drop
    the older one from that epoch on, so that none is drawn twice.

    Raises ``MissingExtraError`` without the extra ``track``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None
        self.make = _writer_class()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:  # noqa: ARG002
        if self.writer is None:
            self.writer = self.make(str(self.folder), purge_step=record.epoch)
        for name, value in scalars(record):
            self.writer.add_scalar(name, value, record.epoch)
        self.writer.flush()

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def scalars(record: EpochRecord) -> Iterator[tuple[str, float]]:
    """The known values of an epoch by TensorBoard's names; ``/`` puts curves in one chart section."""
    splits = {"train": record.train, "validation": record.validation, "test": record.test}
    measured = {name: metrics for name, metrics in splits.items() if metrics is not None}
    values: dict[str, float | None] = {
        "loss/running": record.running_loss,
        **{f"loss/{name}": metrics.loss for name, metrics in measured.items()},
        "error/running": record.running_error,
        **{f"error/{name}": metrics.error for name, metrics in measured.items()},
        "learning_rate": record.learning_rate,
        "images_per_second": record.images_per_second,
    }
    return ((name, value) for name, value in values.items() if value is not None)


def _writer_class() -> Any:
    return load_extra("torch.utils.tensorboard", "a log for TensorBoard", "track").SummaryWriter

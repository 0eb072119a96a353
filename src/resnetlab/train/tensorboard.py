"""Curves for TensorBoard (extra ``track``)."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from resnetlab.core.errors import MissingExtraError
from resnetlab.records.run import EpochRecord
from resnetlab.train.callbacks import Silent

FOLDER = "tensorboard"


class TensorBoard(Silent):
    """A watcher that writes the scalars of every epoch to an event file in ``folder``; close it, or use ``with``.

    Nothing is written before the first epoch ends. A run that was resumed begins another file, which tells TensorBoard
    to forget what an older one says of its first epoch and those after it, so that none is drawn twice.

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
    """What is known of an epoch by TensorBoard's names; ``/`` puts curves in one chart section."""
    values: dict[str, float | None] = {
        "loss/running": record.running_loss,
        "loss/train": record.train.loss if record.train else None,
        "loss/test": record.test.loss,
        "error/running": record.running_error,
        "error/train": record.train.error if record.train else None,
        "error/test": record.test.error,
        "learning_rate": record.learning_rate,
        "images_per_second": record.images_per_second,
    }
    return ((name, value) for name, value in values.items() if value is not None)


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception as error:  # a broken dependency of it fails in other ways than ImportError
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MissingExtraError(
            f"TensorBoard's files need tensorboard, which does not load ({reason}); pip install 'resnetlab[track]'"
        ) from error
    return SummaryWriter

"""Who watches a run, and the JSON lines that it leaves."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from resnetlab.core.files import atomic_write
from resnetlab.core.serialize import as_plain
from resnetlab.records.run import EpochRecord


@dataclass(frozen=True)
class Pulse:
    """How training goes: loss and error (a share) of the latest steps, in training mode, and its speed."""

    loss: float
    error: float
    images_per_second: float


class Watcher(Protocol):
    """What the training loop tells while it runs. It is called between steps and must not wait for the device."""

    def on_note(self, text: str) -> None:
        """Something a user should know, such as a damaged checkpoint that was passed over."""

    def on_step(self, step: int, steps: int, pulse: Pulse | None) -> None:
        """``step`` of ``steps`` of the whole run is done; now and then with how it goes."""

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        """An epoch was trained, evaluated and saved."""


class Silent:
    """A watcher that does nothing."""

    def on_note(self, text: str) -> None:
        pass

    def on_step(self, step: int, steps: int, pulse: Pulse | None) -> None:
        pass

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        pass


class Together:
    """Tells several watchers, in their order."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def on_note(self, text: str) -> None:
        for watcher in self.watchers:
            watcher.on_note(text)

    def on_step(self, step: int, steps: int, pulse: Pulse | None = None) -> None:
        for watcher in self.watchers:
            watcher.on_step(step, steps, pulse)

    def on_epoch(self, record: EpochRecord, epochs: int) -> None:
        for watcher in self.watchers:
            watcher.on_epoch(record, epochs)


def write_metrics(path: Path, history: list[EpochRecord]) -> None:
    """One JSON line an epoch. The file is written whole from the checkpoint's own history, so after a crash and a
    resume no epoch is missing and none stands twice."""
    atomic_write(path, "".join(json.dumps(as_plain(record), allow_nan=False) + "\n" for record in history))

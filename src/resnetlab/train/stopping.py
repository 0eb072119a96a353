"""Ending a run on request: SIGTERM and Ctrl-C are noted, the step under way ends, and what was reached is saved."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from resnetlab.train.distributed import sum_over_ranks, world

SIGNALS = (signal.SIGINT, signal.SIGTERM)
ASK_EVERY = 10
"""Steps between the questions of several ranks to each other: each costs a message, and all must stop at the same."""


class StopRequest:
    """The signal that asked to stop, if one has."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def agreed(self, step: int, device: torch.device) -> int | None:
        """The signal on which to stop after ``step``: one's own, or where there are several ranks any rank's."""
        if world().size == 1:
            return self.signal
        if step % ASK_EVERY:
            return None
        asked = torch.tensor([self.signal == number for number in SIGNALS], dtype=torch.int32, device=device)
        counts = sum_over_ranks(asked).tolist()
        return next((number for number, count in zip(SIGNALS, counts, strict=True) if count), None)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM instead of dying of it; a second one ends the process at once."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.signal is not None:
            os._exit(128 + number)
        request.signal = number

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

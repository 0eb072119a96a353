"""Ending a run on request: while it trains, SIGTERM, Ctrl-C, Ctrl-\\ and a terminal that closes are noted, the step
under way ends, and it is saved.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from resnetlab.core.errors import StoppedError
from resnetlab.train.distributed import sum_over_ranks, world

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
ASK_EVERY = 10
"""Steps between the questions of several ranks to each other: each costs a message, and all must stop at the same."""


class Interrupted(KeyboardInterrupt):
    """A signal that nobody asks for: it ends what is being done, where it stands.

    No ``Exception``, which a library that is being loaded may catch. And no plain ``KeyboardInterrupt``: where that
    passes through ``exec``, as it does while dataclasses are made, Python ends by SIGINT whatever the exit code is.
    """


class StopRequest:
    """The signal that asked to stop, if one has.

    It is noted where someone asks for it between steps (``deferred``); elsewhere, as while data are read, it ends the
    run where it stands, since there is nothing to save. A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._deferred = False

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within, a signal is only noted."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal; raises ``Interrupted`` with its number where nobody asks for it."""
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
        if not self._deferred:
            raise Interrupted(number)

    def agreed(self, step: int, device: torch.device, diverged: bool = False) -> tuple[int | None, bool]:
        """The signal on which to stop after ``step``, and whether the run has ``diverged``: one's own, or where there
        are several ranks any rank's."""
        if world().size == 1:
            return self.signal, diverged
        if step % ASK_EVERY:
            return None, False
        asked = [*(self.signal == number for number in SIGNALS), diverged]
        *counts, broken = sum_over_ranks(torch.tensor(asked, dtype=torch.int32, device=device)).tolist()
        return next((number for number, count in zip(SIGNALS, counts, strict=True) if count), None), bool(broken)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Let ``SIGNALS`` ask to stop, instead of ending the process wherever it stands.

    A SIGHUP that is ignored stays so: ``nohup`` asks for it. Raises ``StoppedError`` where one ends what is within
    outside of training.
    """
    request = StopRequest()
    heard = [number for number in SIGNALS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, request.note) for number in heard}
    try:
        yield request
    except KeyboardInterrupt:
        if request.signal is None:
            raise
        name = signal.Signals(request.signal).name
        raise StoppedError(f"stopped by {name} outside of training", request.signal) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

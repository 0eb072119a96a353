"""Processes that answer requests ahead, in order, and stay for the next pass; and how any process that decodes begins
and ends. torch is loaded by the first alone.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

from resnetlab.core.errors import DataError, first_line

if TYPE_CHECKING:
    from torch.utils.data import DataLoader, Dataset

LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM)
BY_COPY = "fork" if sys.platform == "linux" else None
"""How processes start: where they can as a copy, at once, and with no copy of a million names sent to them."""


class Workers:
    """``count`` processes that make ``source[request]`` for every request of a pass, and then of the next.

    They start with the first pass; ``seed`` decides what they draw. They are gone after ``end()``, which comes by
    itself with the end of this object, or of the process that it is in.
    """

    def __init__(self, source: "Dataset[Any]", count: int, seed: int = 0) -> None:
        import torch
        from torch.utils.data import DataLoader

        self.source = source
        self._requests = _Requests()
        self._processes: set[BaseProcess] = set()
        with no_warnings():
            loader = DataLoader(
                source,
                batch_size=None,
                sampler=self._requests,
                num_workers=count,
                persistent_workers=True,
                collate_fn=_as_it_is,
                worker_init_fn=partial(begin_worker, os.getpid()),
                multiprocessing_context=BY_COPY,
                # Without one of its own the loader draws from the global generator.
                generator=torch.Generator().manual_seed(seed),
            )
        self._held: list[DataLoader[Any]] = [loader]
        # A process that ends terminates its children and waits for them. These ignore that: so it runs this before.
        self.end = Finalize(self, _end, (self._held, self._processes), exitpriority=0)

    @property
    def usable(self) -> bool:
        """Whether another pass can be made: they were not ended, and none was killed."""
        return bool(self._held) and all(process.is_alive() for process in self._processes)

    def answers(self, requests: Sequence[Any]) -> Generator[Any]:
        """What the processes make of each request, in order. A pass that is left before its last answer ends them.

        Raises ``DataError`` where one of them broke down or was killed.
        """
        left = len(requests)
        try:
            for answer in self._start(requests):
                left -= 1
                yield answer
        except (RuntimeError, OSError, EOFError) as error:
            raise broken_down(error) from error
        finally:
            if left:
                self.end()

    def _start(self, requests: Iterable[Any]) -> Iterator[Any]:
        self._requests.now = requests
        if self._processes:
            return iter(self._held[0])
        others = set(multiprocessing.active_children())
        in_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGCHLD) if in_main else None
        try:
            with signals_held(), no_warnings():
                return iter(self._held[0])
        finally:
            self._processes |= set(multiprocessing.active_children()) - others
            if in_main:
                # The loader's handler would raise wherever the program is when a worker dies, not where it waits.
                signal.signal(signal.SIGCHLD, handler)


def answers_of(source: "Dataset[Any]", requests: Sequence[Any], count: int, seed: int = 0) -> Generator[Any]:
    """``Workers.answers`` of processes that make this one pass, and are gone when this generator is."""
    workers = Workers(source, count, seed)
    try:
        yield from workers.answers(requests)
    finally:
        workers.end()


class _Requests:
    """The requests of the pass that begins, as the loader asks for them."""

    now: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now)


@contextmanager
def no_warnings() -> Iterator[None]:
    """Of more workers than cores, and of forking beside threads: the workers touch nothing that a thread may hold."""
    with catch_warnings():
        simplefilter("ignore")
        yield


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold back, while processes start, what ``begin_worker`` leaves to the parent: they start with what it holds."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def broken_down(error: BaseException) -> DataError:
    """What is said where a process that decodes has ended before its parent asked it to."""
    return DataError(
        "a process that decodes images broke down or was killed, most often because memory ran out "
        f"({first_line(error)}); use fewer --workers or smaller batches. What was saved stays: "
        "a run that is resumed goes on from its last checkpoint, a prediction into the same --out from its last batch"
    )


def _as_it_is(answer: Any) -> Any:
    return answer


def _end(held: "list[DataLoader[Any]]", processes: set[BaseProcess]) -> None:
    """The loader's own end, which waits for its workers; then whatever did not heed it."""
    held.clear()
    for process in processes:
        process.kill()
        process.join()


def begin_worker(parent: int, _worker: int = 0) -> None:
    """Leave Ctrl-C and SIGTERM, which reach the whole group, to the parent, which decides what becomes of its workers.

    torch's watchdog ends a worker whose parent is gone, but takes for the parent whoever it finds at its start, which
    comes after this: a worker whose parent was killed by then would wait for good. So another one knows the parent.
    """
    for number in LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
    _end_without(parent)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while True:
        _end_without(parent)
        time.sleep(1)


def _end_without(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)

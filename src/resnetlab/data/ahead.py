"""``map`` done ahead, with results in order: in threads, or in processes. torch is not loaded.

Pillow decodes without Python's lock, so that threads are enough for large images. Of small ones most of the time is
Python's, and only processes share that.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from typing import TypeVar
from warnings import catch_warnings, simplefilter

from resnetlab.data.processes import BY_COPY, begin_worker, broken_down, no_warnings, signals_held

AHEAD = 8
"""Results that wait for each thread or process."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def in_threads(function: Callable[[Given], Made], given: Iterable[Given], workers: int) -> Iterator[Made]:
    """``map`` in so many threads; in none for 0 and 1."""
    if workers < 2:
        yield from map(function, given)
        return
    # Threads that end their own ``catch_warnings`` in another order than they began would leave its filter behind.
    with catch_warnings(), ThreadPoolExecutor(workers) as pool:
        simplefilter("ignore")
        yield from _in_order(pool, function, given, workers)


def in_processes(function: Callable[[Given], Made], given: Iterable[Given], workers: int) -> Iterator[Made]:
    """``map`` in so many processes, which are gone when this generator is; in none for 0, and where only one is given.

    ``function``, what it is given and what it makes are pickled on their way. Raises ``DataError`` where a process
    breaks down or is killed.
    """
    given = iter(given)
    first = list(islice(given, 2))
    if workers < 1 or len(first) < 2:
        yield from map(function, chain(first, given))
        return
    with _processes(workers) as pool:
        try:
            yield from _in_order(pool, function, chain(first, given), workers)
        except BrokenProcessPool as error:
            raise broken_down(error) from error


def _in_order(
    pool: Executor, function: Callable[[Given], Made], given: Iterable[Given], workers: int
) -> Iterator[Made]:
    waiting: deque[Future[Made]] = deque()
    for each in given:
        waiting.append(pool.submit(function, each))
        # More would hold their results in memory.
        if len(waiting) >= AHEAD * workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    pool = ProcessPoolExecutor(workers, get_context(BY_COPY), partial(begin_worker, os.getpid()))
    try:
        with signals_held(), no_warnings():
            # The first task starts all of them.
            pool.submit(os.getpid)
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)

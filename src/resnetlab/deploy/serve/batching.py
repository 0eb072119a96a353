"""Dynamic batching: images of several requests are computed together, and no more are taken than can wait."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class QueueFullError(Exception):
    """As many images wait as may."""


@dataclass(frozen=True)
class _Waiting(Generic[Job, Answer]):
    job: Job
    images: int
    since: float
    answer: "asyncio.Future[Answer]"


class Batcher(Generic[Job, Answer]):
    """Gathers jobs to batches of up to ``most`` images, and computes one after the other.

    ``compute`` gives for each job of a batch its answer, or the error that it alone ends in. Images that arrive while a
    batch is computed make the next one. One that finds nothing under way waits up to ``wait`` seconds for others, but
    not where no ``others`` can ask beside the number that waits. A thread of its own computes, or the event loop
    itself where a batch is ``quick``: to hand it over would cost more than it takes. At most ``queue`` images hold a
    place. ``on_batch`` is told the size of each batch, ``on_held`` how many places are taken. All methods belong to one
    event loop.
    """

    def __init__(
        self,
        compute: Callable[[list[Job]], Sequence[Answer | Exception]],
        *,
        most: int,
        wait: float,
        queue: int,
        others: Callable[[int], bool] = lambda _: True,
        quick: Callable[[list[Job]], bool] = lambda _: False,
        on_batch: Callable[[int], object] = lambda _: None,
        on_held: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._compute, self._most, self._wait, self._queue = compute, most, wait, queue
        self._others, self._quick = others, quick
        self._on_batch, self._on_held = on_batch, on_held
        self._waiting: deque[_Waiting[Job, Answer]] = deque()
        self._thread = ThreadPoolExecutor(1, "compute")
        self._busy = self._looking = False
        self._timer: asyncio.TimerHandle | None = None
        self._held = 0

    @contextmanager
    def place(self, images: int = 1) -> Iterator[None]:
        """Hold places for so many images within. Raises ``QueueFullError`` where there are none."""
        if self._held + images > self._queue:
            raise QueueFullError
        self._held += images
        self._on_held(self._held)
        try:
            yield
        finally:
            self._held -= images
            self._on_held(self._held)

    async def answer(self, job: Job, images: int = 1) -> Answer:
        """The answer to a job of up to ``most`` images, whose places the caller holds."""
        loop = asyncio.get_running_loop()
        one: _Waiting[Job, Answer] = _Waiting(job, images, loop.time(), loop.create_future())
        self._waiting.append(one)
        self._soon(loop)
        return await one.answer

    def _soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look for a batch once whatever else came in this turn of the loop waits too."""
        if not self._looking and not self._busy:
            self._looking = True
            loop.call_soon(self._next, loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the next batch if none is under way, and nothing more is to be waited for."""
        self._looking = False
        if self._busy or not self._waiting:
            return
        left = self._waiting[0].since + self._wait - loop.time()
        full = sum(one.images for one in self._waiting) >= self._most
        if left > 0 and not full and self._others(len(self._waiting)):
            self._timer = self._timer or loop.call_later(left, self._time_out, loop)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [self._waiting.popleft()]
        images = batch[0].images
        while self._waiting and images + self._waiting[0].images <= self._most:
            batch.append(self._waiting.popleft())
            images += batch[-1].images
        self._on_batch(images)
        jobs = [one.job for one in batch]
        if self._quick(jobs):
            _answer(batch, self._tried(jobs))
            self._soon(loop)
            return
        self._busy = True
        done = loop.run_in_executor(self._thread, self._tried, jobs)
        done.add_done_callback(lambda done: self._end(loop, batch, done.result()))

    def _time_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._next(loop)

    def _end(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[_Waiting[Job, Answer]],
        answers: Sequence[Answer | BaseException],
    ) -> None:
        self._busy = False
        self._next(loop)
        _answer(batch, answers)

    def _tried(self, jobs: list[Job]) -> Sequence[Answer | BaseException]:
        """The answers; where computing itself fails, that error for each."""
        try:
            return self._compute(jobs)
        except Exception as error:
            return [error] * len(jobs)


def _answer(batch: list[_Waiting[Job, Answer]], answers: Sequence[Answer | BaseException]) -> None:
    for one, answer in zip(batch, answers, strict=True):
        if one.answer.cancelled():
            continue
        if isinstance(answer, BaseException):
            one.answer.set_exception(answer)
        else:
            one.answer.set_result(answer)

"""Dynamic batching: images of several requests are computed together, and no more are taken than can wait."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from resnetlab.data.decode import Pixels
from resnetlab.deploy.engines import Logits


class QueueFullError(Exception):
    """As many images wait as may."""


@dataclass(frozen=True)
class _Waiting:
    pixels: Pixels
    since: float
    answer: "asyncio.Future[Logits]"


class Batcher:
    """Computes batches of up to ``most`` images in a thread of its own, one batch at a time.

    Images that arrive while a batch is computed make the next one. One that finds the thread idle waits up to ``wait``
    seconds for others. At most ``queue`` images hold a place, from before they are decoded until they are answered.
    ``on_batch`` is told the size of each batch, ``on_held`` how many places are taken. All methods belong to one event
    loop.
    """

    def __init__(
        self,
        compute: Callable[[Pixels], Logits],
        *,
        most: int,
        wait: float,
        queue: int,
        on_batch: Callable[[int], object] = lambda _: None,
        on_held: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._compute, self._most, self._wait, self._queue = compute, most, wait, queue
        self._on_batch, self._on_held = on_batch, on_held
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "compute")
        self._busy = False
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

    async def logits(self, pixels: Pixels) -> Logits:
        """Logits ``(N, K)`` of pixels ``(N, side, side, C)``, N up to ``most``; the caller holds their places."""
        loop = asyncio.get_running_loop()
        one = _Waiting(pixels, loop.time(), loop.create_future())
        self._waiting.append(one)
        self._next(loop)
        return await one.answer

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin the next batch if the thread is idle, and there are enough images or the first has waited enough."""
        if self._busy or not self._waiting:
            return
        left = self._waiting[0].since + self._wait - loop.time()
        if left > 0 and sum(len(one.pixels) for one in self._waiting) < self._most:
            if self._timer is None:
                self._timer = loop.call_later(left, self._time_out, loop)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch = [self._waiting.popleft()]
        images = len(batch[0].pixels)
        while self._waiting and images + len(self._waiting[0].pixels) <= self._most:
            batch.append(self._waiting.popleft())
            images += len(batch[-1].pixels)
        self._busy = True
        self._on_batch(images)
        loop.run_in_executor(self._thread, self._computed, batch).add_done_callback(
            lambda done: self._answer(loop, batch, done)
        )

    def _time_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self._next(loop)

    def _computed(self, batch: list[_Waiting]) -> Logits:
        return self._compute(np.concatenate([one.pixels for one in batch]))

    def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], done: "asyncio.Future[Logits]") -> None:
        self._busy = False
        self._next(loop)
        start = 0
        for one in batch:
            if one.answer.cancelled():
                pass
            elif error := done.exception():
                one.answer.set_exception(error)
            else:
                one.answer.set_result(done.result()[start : start + len(one.pixels)])
            start += len(one.pixels)

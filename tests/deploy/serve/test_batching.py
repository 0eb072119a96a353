"""Images of several requests share batches, answers find their requests, and places are bounded."""

import asyncio
import threading
import time

import numpy as np
import pytest

from resnetlab.deploy.serve.batching import Batcher, QueueFullError


def numbered(value: int, images: int = 1) -> np.ndarray:
    return np.full((images, 2, 2, 1), value, np.uint8)


def sums(jobs: list[np.ndarray]) -> list[np.ndarray]:
    return [pixels.reshape(len(pixels), -1).sum(axis=1, dtype=np.float32)[:, None] for pixels in jobs]


def run(most: int, wait: float, requests: list[np.ndarray], compute=sums, queue: int = 1000, **settings):
    """The answers, and the sizes of the batches."""
    batches: list[int] = []

    async def all_of_them():
        batcher = Batcher(compute, most=most, wait=wait, queue=queue, on_batch=batches.append, **settings)

        async def one(pixels):
            with batcher.place(len(pixels)):
                return await batcher.answer(pixels, len(pixels))

        return await asyncio.gather(*map(one, requests), return_exceptions=True)

    return asyncio.run(all_of_them()), batches


def test_every_request_gets_its_own_answer():
    sizes = [1, 3, 2, 4, 1, 1, 2]
    answers, batches = run(4, 0.01, [numbered(n, size) for n, size in enumerate(sizes)])
    for n, (size, answer) in enumerate(zip(sizes, answers, strict=True)):
        assert answer.tolist() == [[4.0 * n]] * size
    assert sum(batches) == sum(sizes)
    # In the order in which they came: 1 + 3, 2 (4 more is too many), 4, 1 + 1 + 2.
    assert batches == [4, 2, 4, 4]


def test_images_that_come_together_share_batches():
    _, batches = run(8, 0.05, [numbered(n) for n in range(20)])
    assert batches == [8, 8, 4]


def test_without_a_wait_what_came_in_one_turn_is_computed_at_once():
    _, batches = run(8, 0.0, [numbered(n) for n in range(9)])
    assert batches == [8, 1]


def test_lone_image_waits_no_longer_than_said():
    answers, batches = run(8, 0.02, [numbered(5)])
    assert (answers[0].tolist(), batches) == ([[20.0]], [1])


def test_fault_in_a_batch_reaches_each_of_its_requests_and_no_other():
    def compute(jobs):
        if max(pixels.max() for pixels in jobs) == 7:
            raise ValueError("seven")
        return sums(jobs)

    answers, _ = run(2, 0.01, [numbered(n) for n in (7, 1, 2, 3)], compute)
    assert [str(answer) for answer in answers[:2]] == ["seven", "seven"]
    assert [answer.tolist() for answer in answers[2:]] == [[[8.0]], [[12.0]]]


def test_error_of_one_job_is_its_own():
    def compute(jobs):
        return [ValueError("seven") if pixels.max() == 7 else sums([pixels])[0] for pixels in jobs]

    answers, batches = run(4, 0.01, [numbered(n) for n in (1, 7, 2, 3)], compute)
    assert batches == [4]
    assert str(answers.pop(1)) == "seven"
    assert [answer.tolist() for answer in answers] == [[[4.0]], [[8.0]], [[12.0]]]


def test_places_are_bounded_and_given_back():
    gate = threading.Event()

    def compute(jobs):
        gate.wait(10)
        return sums(jobs)

    async def fill():
        held: list[int] = []
        batcher = Batcher(compute, most=2, wait=0, queue=5, on_held=held.append)

        async def one(images):
            with batcher.place(images):
                return await batcher.answer(numbered(1, images), images)

        tasks = [asyncio.create_task(one(2)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await one(2)
        tasks.append(asyncio.create_task(one(1)))
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await one(1)
        gate.set()
        await asyncio.gather(*tasks)
        assert len(await one(2)) == 2
        assert (max(held), held[-1]) == (5, 0)

    asyncio.run(fill())


def test_request_that_was_given_up_spoils_no_batch():
    gate = threading.Event()

    def compute(jobs):
        gate.wait(10)
        return sums(jobs)

    async def give_up():
        batcher = Batcher(compute, most=2, wait=0.01, queue=5)
        given_up, other = (asyncio.create_task(batcher.answer(numbered(n))) for n in (1, 2))
        await asyncio.sleep(0.05)
        given_up.cancel()
        await asyncio.sleep(0)
        gate.set()
        return (await other).tolist()

    assert asyncio.run(give_up()) == [[8.0]]


@pytest.mark.parametrize(("clients", "wait"), [(3, 60), (4, 0.5)])
def test_nobody_waits_for_others_that_cannot_ask(clients, wait):
    """All three that there are have asked; the control waits for a fourth, which never does."""
    started = time.monotonic()
    _, batches = run(8, wait, [numbered(n) for n in range(3)], others=lambda waiting: waiting < clients)
    assert batches == [3]
    assert (time.monotonic() - started >= wait) == (clients > 3)


def test_quick_batches_are_computed_by_the_loop_and_others_by_a_thread():
    threads: dict[int, str] = {}

    def compute(jobs):
        threads[len(jobs)] = threading.current_thread().name
        return sums(jobs)

    sizes = [numbered(n) for n in range(5)]
    answers, batches = run(3, 0.01, sizes, compute, quick=lambda jobs: len(jobs) == 3)
    assert batches == [3, 2]
    assert [answer.tolist() for answer in answers] == [[[4.0 * n]] for n in range(5)]
    assert threads[3] == threading.main_thread().name
    assert threads[2].startswith("compute")


def test_loop_turns_between_quick_batches():
    """Others are answered: a long line of quick batches does not keep the loop."""
    turns: list[int] = []

    def compute(jobs):
        turns.append(len(order))
        return sums(jobs)

    order: list[int] = []

    async def all_of_them():
        batcher = Batcher(compute, most=1, wait=0, queue=100, quick=lambda _: True)

        async def count():
            for turn in range(40):
                order.append(turn)
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await asyncio.gather(*(batcher.answer(numbered(n)) for n in range(10)))
        await counting

    asyncio.run(all_of_them())
    assert turns == sorted(set(turns)), "between any two batches the other task had its turn"


def test_fault_in_a_quick_batch_reaches_each_of_its_requests():
    def compute(jobs):
        raise ValueError("seven")

    answers, _ = run(2, 0.01, [numbered(n) for n in range(3)], compute, quick=lambda _: True)
    assert [str(answer) for answer in answers] == ["seven"] * 3

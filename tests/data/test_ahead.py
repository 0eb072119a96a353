"""``map`` done ahead: results in order, few held at a time, and the end of the processes that make them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resnetlab.core.errors import DataError
from resnetlab.data.ahead import AHEAD, in_processes, in_threads
from tests.data.test_encoded import alive, end

ROOT = Path(__file__).parents[2]


def squared(number: int) -> int:
    """Raises ``ValueError`` for 13."""
    if number == 13:
        raise ValueError("thirteen")
    return number * number


def process(_: int) -> int:
    """Where it runs."""
    return os.getpid()


def thread(_: int) -> str:
    return threading.current_thread().name


def killed(number: int) -> int:
    """The process that is given 3 is killed."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("ahead", [in_threads, in_processes])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 12])
def test_results_in_order(ahead: Callable[..., Iterator[int]], workers: int, count: int):
    assert list(ahead(squared, range(count), workers)) == [number**2 for number in range(count)]


def test_others_do_the_work():
    assert set(in_threads(thread, range(9), 2)) <= {f"ThreadPoolExecutor-{n}_{k}" for n in range(99) for k in range(2)}
    found = set(in_processes(process, range(400), 2))
    assert os.getpid() not in found
    assert 1 <= len(found) <= 2


@pytest.mark.parametrize(("count", "workers"), [(1, 2), (9, 0)])
def test_no_process_starts_for_one_or_without_workers(count: int, workers: int):
    assert set(in_processes(process, range(count), workers)) == {os.getpid()}


@pytest.mark.parametrize("ahead", [in_threads, in_processes])
def test_few_are_asked_for_ahead(ahead: Callable[..., Iterator[int]]):
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(100, 300):
            asked.append(number)
            yield number

    found = ahead(squared, numbers(), 2)
    for done in range(1, 20):
        next(found)
        assert len(asked) <= done + 2 * AHEAD
    found.close()


@pytest.mark.parametrize("ahead", [in_threads, in_processes])
def test_error_of_the_function_is_raised_in_its_place(ahead: Callable[..., Iterator[int]]):
    found = ahead(squared, range(10, 20), 2)
    assert [next(found) for _ in range(3)] == [100, 121, 144]
    with pytest.raises(ValueError, match="thirteen"):
        next(found)


def test_process_that_is_killed_is_told_of():
    with pytest.raises(DataError, match="broke down or was killed, most often because memory ran out"):
        list(in_processes(killed, range(100), 2))
    assert not multiprocessing.active_children()


def test_processes_are_gone_when_the_pass_is_left():
    found = in_processes(squared, range(100, 1000), 2)
    next(found)
    assert len(multiprocessing.active_children()) == 2
    found.close()
    assert not multiprocessing.active_children()


def test_processes_leave_signals_of_the_group_to_their_parent(monkeypatch: pytest.MonkeyPatch):
    """From their first moment on."""
    fork, signalled = multiprocessing.get_context("fork").Process.start, []

    def start(process: Any) -> None:
        fork(process)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.pid, number)
        signalled.append(process.pid)

    monkeypatch.setattr("multiprocessing.context.ForkProcess.start", start)
    assert list(in_processes(squared, range(100, 150), 2)) == [number**2 for number in range(100, 150)]
    assert len(signalled) == 2


KILLED = """
import multiprocessing, time
from tests.data.test_ahead import squared
from resnetlab.data.ahead import in_processes
found = in_processes(squared, range(100, 10**6), 2)
next(found)
print(*[process.pid for process in multiprocessing.active_children()], flush=True)
time.sleep(60)
"""


def test_processes_end_with_a_parent_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(alive(worker) for worker in workers)
        parent.kill()
    assert end(workers)


def test_torch_is_not_loaded():
    script = "import sys, resnetlab.data.ahead; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"

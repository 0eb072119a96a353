"""Children to be killed.

A process that imports torch takes two seconds to start, and what torch does first takes longer than the second time.
So children are forked from a parent that has imported it and trained one small run: the fork server of multiprocessing.
It has one thread, and torch starts its own in the child.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# torch loads the half of itself that compiles with the first optimizer, which would cost each child a second.
CONTEXT.set_forkserver_preload(
    [
        "torch._dynamo",
        "cattrs",
        "sklearn.datasets",
        "sklearn.model_selection",
        "resnetlab.data.sources",
        "resnetlab.models.summary",
        "resnetlab.train.gradients",
    ]
    + ["resnetlab.report.run.page", "matplotlib.figure", "matplotlib.backends.backend_svg"]
    + [f"resnetlab.cli.{name}" for name in ("commands", "train", "progress", "tables")]
    + [
        f"tests.faults.{name}"
        for name in ("kills", "operations", "resume", "damage", "signals", "storage", "numbers", "workers")
    ]
    # The last one trains a small run, with all that the others have loaded.
    + [f"tests.faults.{name}" for name in ("edits", "memory", "power", "inputs", "warm")]
)
TURN = threading.Lock()
"""Process.start looks after all children that have ended, which two threads must not do at the same time."""
PATIENCE = 120.0


class Pool:
    """Runs the cases of a fault, ``workers`` of them at a time, and calls ``tick(done, all)`` after each."""

    def __init__(self, workers: int = 1, tick: Callable[[int, int], None] = lambda *_: None) -> None:
        self.workers, self.tick = workers, tick

    def map(self, function: Callable[..., Any], jobs: Iterable[tuple]) -> list[Any]:
        jobs = list(jobs)
        results = []
        with ThreadPoolExecutor(self.workers) as threads:
            for result in threads.map(lambda job: function(*job), jobs):
                results.append(result)
                self.tick(len(results), len(jobs))
        return results


def _begin(function: Callable[..., None], arguments: tuple, errors: str | None) -> None:
    """A session of its own, so that a test can see what it leaves behind, and the signals of a fresh process."""
    import torch

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if errors is not None:
        handle = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, sys.stderr.fileno())
        os.dup2(handle, sys.stdout.fileno())
    torch.set_num_threads(1)
    function(*arguments)


def start(function: Callable[..., None], *arguments: Any, errors: Path | None = None) -> BaseProcess:
    """A child that calls the function, which a module must hold; its output goes to the file ``errors``."""
    process = CONTEXT.Process(target=_begin, args=(function, arguments, None if errors is None else str(errors)))
    with TURN:
        process.start()
    return process


def ends_within(process: BaseProcess, seconds: float) -> bool:
    return bool(wait([process.sentinel], timeout=max(0.0, seconds)))


def finish(process: BaseProcess, seconds: float = PATIENCE) -> int:
    """The exit code, negative for a signal; a child that does not end is killed, and that is an error."""
    ended = ends_within(process, seconds)
    if not ended:
        process.kill()
    with TURN:
        process.join()
    assert ended, f"a child did not end within {seconds} s"
    assert process.exitcode is not None
    return process.exitcode


def kill(process: BaseProcess, after: float) -> bool:
    """SIGKILL after so many seconds; False where it had ended before."""
    early = ends_within(process, after)
    if not early:
        os.kill(process.pid, signal.SIGKILL)
    return finish(process) == -signal.SIGKILL


def _answer(sender: Any, function: Callable[..., Any], arguments: tuple) -> None:
    sender.send(function(*arguments))


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a child."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = start(_answer, sender, function, arguments)
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        raise AssertionError(f"{function.__name__}{arguments} gave no answer") from None
    finally:
        finish(process)


def run(function: Callable[..., None], *arguments: Any) -> float:
    """Run the function in a child to its end; the seconds that it took."""
    started = time.perf_counter()
    code = finish(start(function, *arguments))
    assert code == 0, f"{function.__name__}{arguments} ended with {code}"
    return time.perf_counter() - started


def of_session(session: int) -> list[int]:
    """The processes of a session that still live: what a command left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # After the name in parentheses: state, parent, group, session.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found

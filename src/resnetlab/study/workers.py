"""Workers of a study: processes that each train one run at a time, in one thread.

What one of them does, the lock of the run's folder says to all, so nothing else is shared but the folder of the study.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import sleep
from typing import Literal

from resnetlab.core.errors import require

Workers = int | Literal["auto"]

MOST_WORKERS = 1024
"""Workers of a study on one machine: guards against typing errors."""
BEAT = 2.0
"""Seconds between two looks of a worker at whether the process that started it lives."""
STARTER = "RESNETLAB_STARTED_BY"
"""Environment variable of a worker that ``local_workers`` started: the number of the process that did."""


def check_workers(workers: Workers) -> None:
    """Raise ``ConfigError`` for a number of workers that there cannot be."""
    known = workers == "auto" or 1 <= int(workers) <= MOST_WORKERS
    require(known, "workers", workers, f"auto, or from 1 to {MOST_WORKERS}")


def count_workers(workers: Workers, device: str) -> int:
    """How many workers there are: ``auto`` is one a core, on cuda one a device, and one for each rank of torchrun."""
    from resnetlab.train.distributed import started_by_torchrun
    from resnetlab.train.prepare import pick_device

    if workers != "auto":
        return workers
    if started_by_torchrun():
        return 1
    if pick_device(device).type == "cuda":
        import torch

        return torch.cuda.device_count()
    return len(os.sched_getaffinity(0))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: sums then have one order, whatever the cores and the workers beside this one."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def local_workers(words: Sequence[str], count: int) -> Iterator[None]:
    """Start ``count`` processes on this machine that run ``resnetlab`` with these words beside this one. None of them
    outlives the block, or this process by more than ``BEAT``."""
    started = []
    try:
        for number in range(1, count + 1):
            place = {"RANK": str(number), "LOCAL_RANK": str(number), STARTER: str(os.getpid())}
            command = [sys.executable, "-m", "resnetlab", *words]
            started.append(
                subprocess.Popen(command, env=os.environ | place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            )
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def is_helper() -> bool:
    """Whether another process started this one as a worker, and tells what comes of the study."""
    return STARTER in os.environ


def end_with_starter() -> None:
    """Stop as by SIGTERM, with a checkpoint, when the process that started this worker is gone."""
    starter = os.environ.get(STARTER)
    if starter is None:
        return

    def watch() -> None:
        while os.getppid() == int(starter):
            sleep(BEAT)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()

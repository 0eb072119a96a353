"""Each run of a study is claimed once, by one of the workers that torchrun started or this process did.

The claims lie in the store through which the workers find each other; no process group is made of it, since each run
trains alone, in one thread. A claim is worth as much as the process that holds it: when that is gone, the run is free
again.
"""

import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self
from uuid import uuid4

from resnetlab.core.errors import ResNetLabError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

BEAT = 2.0
"""Seconds between the signs of life of a worker."""
PATIENCE = 60.0
"""Seconds without one after which a worker on another machine is lost."""
STARTER = "RESNETLAB_STARTED_BY"
"""Environment variable of a worker that ``local_workers`` started: the number of the process that did."""


class Claims(Protocol):
    """Who does which run."""

    def take(self, name: str) -> bool:
        """Whether the run is this worker's to do."""


class Everything:
    """The claims of one worker alone."""

    def take(self, name: str) -> bool:  # noqa: ARG002
        return True


class StoreClaims:
    """Claims in a store that all workers reach.

    Raises ``ResNetLabError`` where the store is gone, and with it the process that holds it.
    """

    def __init__(self, store: "Store", beat: float = BEAT, patience: float = PATIENCE) -> None:
        self.store = store
        self.beat, self.patience = beat, patience
        # A process that torchrun started again is another one, and must not pass for the holder of older claims.
        self.token = f"{_home()}|{os.getpid()}|{uuid4().hex}"
        self._seen: dict[str, tuple[int, float]] = {}
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._live, daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._heart.join()

    def take(self, name: str) -> bool:
        """Whether the run is this worker's to do: nobody had claimed it, or whoever had is gone."""
        key = f"resnetlab/claim/{name}"
        try:
            holder = self.store.compare_set(key, "", self.token).decode()
            if holder != self.token and self._is_gone(holder):
                holder = self.store.compare_set(key, holder, self.token).decode()
        except RuntimeError as error:
            raise ResNetLabError(
                f"the process that holds the claims of the study is gone ({error}); give the same command again"
            ) from error
        return holder == self.token

    def _is_gone(self, holder: str) -> bool:
        home, pid, _ = holder.split("|")
        if home == _home() and not _exists(int(pid)):
            return True
        count = self.store.add(_pulse(holder), 0)
        before, since = self._seen.get(holder, (-1, 0.0))
        if count != before:
            self._seen[holder] = (count, monotonic())
            return False
        return monotonic() - since > self.patience

    def _live(self) -> None:
        with suppress(RuntimeError):  # without the store there is nobody to tell; ``take`` says so
            while not self._ended.wait(self.beat):
                self.store.add(_pulse(self.token), 1)


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
def local_workers(words: Sequence[str], count: int) -> Iterator["Store"]:
    """Start ``count`` processes on this machine that run ``resnetlab`` with these words beside this one, the leading
    rank; the store in which they meet. None of them outlives the block, or this process by more than ``BEAT``."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch does not list its names

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(count + 1)}
    started = []
    try:
        for rank in map(str, range(1, count + 1)):
            place = {"RANK": rank, "LOCAL_RANK": rank, STARTER: str(os.getpid())}
            command = [sys.executable, "-m", "resnetlab", *words]
            started.append(
                subprocess.Popen(
                    command, env=os.environ | meeting | place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
            )
        yield store
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


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


def _pulse(holder: str) -> str:
    return f"resnetlab/pulse/{holder}"


def _home() -> str:
    """Where a process number means one process: this machine, and within it this container."""
    space = Path("/proc/self/ns/pid")
    return f"{platform.node()}:{space.readlink() if space.is_symlink() else ''}"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

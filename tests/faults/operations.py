"""A process that is gone at one operation on files after the other, while it writes a checkpoint."""

import builtins
import os
import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from resnetlab.core.errors import CheckpointError
from resnetlab.core.files import read_folder, replace_folder
from resnetlab.records.run import EpochRecord, Metrics
from resnetlab.train import checkpoint_manager
from resnetlab.train.checkpoint import pack
from resnetlab.train.checkpoint_manager import CheckpointManager
from resnetlab.train.config import TrainConfig
from resnetlab.train.loop import Trainer
from resnetlab.train.prepare import make_loader
from tests.conftest import make_data
from tests.faults import processes
from tests.faults.processes import Pool

WAYS = ("kill", "crash")
BEFORE = (0, 1, 2)
"""Epochs that were written before: none, one, and two, when there is a version to fall back to."""


class Crash(BaseException):
    """The process is gone: nothing may tidy up behind it."""


class Torn:
    """A stream of which a write can be the operation at which all ends: half of it reaches the file."""

    def __init__(self, stream: Any, at_end: Callable[[], bool], leave: Callable[[], None]) -> None:
        self.stream, self.at_end, self.leave = stream, at_end, leave

    def write(self, data: bytes) -> int:
        if self.at_end():
            self.stream.write(data[: len(data) // 2])
            self.stream.flush()
            self.leave()
        return self.stream.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __enter__(self) -> "Torn":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()


def disturb(number: int, way: str) -> dict[str, int]:
    """From now on the ``number``-th operation on files is this process's last; the operations are counted."""
    count = {"operations": 0}

    def at_end() -> bool:
        count["operations"] += 1
        return count["operations"] >= number

    def leave() -> None:
        if way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise Crash

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if at_end():
                leave()
            return function(*args, **kwargs)

        return call

    # rmtree is not among them: what it calls is, so it ends half done.
    for name in ("replace", "link", "fsync", "open", "unlink", "rmdir", "mkdir"):
        setattr(os, name, guarded(getattr(os, name)))
    opened = guarded(builtins.open)
    builtins.open = lambda *args, **kwargs: Torn(opened(*args, **kwargs), at_end, leave)  # type: ignore[assignment]
    return count


def checkpoint_manager_at(out: Path, epoch: int, widths: tuple[int, ...] = (4, 8, 16)) -> CheckpointManager:
    """The checkpoints of a run after that epoch, each of which was better than the one before it."""
    from resnetlab.models.zoo import create_model

    config = TrainConfig(epochs=9, batch_size=16)
    sizes = {"in_chans": 1, "num_classes": 3, "widths": widths, "stem_width": widths[0]}
    net = create_model("cifar_resnet8", seed=epoch, **sizes)
    state = Trainer(net, make_loader(make_data(), config, torch.device("cpu")), config, seed=0).state
    state.history = [_record(number) for number in range(1, epoch + 1)]
    return CheckpointManager(out, config, state, torch.device("cpu"), chooses=True)


def _record(epoch: int) -> EpochRecord:
    metrics = Metrics(loss=1 / epoch, error=1 / epoch, n=10)
    return EpochRecord(epoch=epoch, learning_rate=0.1, running_loss=1, train=metrics, validation=metrics, seconds=1)


@contextmanager
def in_place() -> Iterator[None]:
    """The control: within, each file is written anew where it lies."""

    def replace(folder: Path, contents: dict[str, Any]) -> None:
        folder.mkdir(exist_ok=True)
        for name, data in contents.items():
            with open(folder / name, "wb") as stream:
                stream.write(data if isinstance(data, bytes) else b"".join(data))
                os.fsync(stream.fileno())

    def share(source: Path, folder: Path) -> None:
        replace(folder, {path.name: path.read_bytes() for path in source.iterdir()})

    before = checkpoint_manager.replace_folder, checkpoint_manager.share_folder
    checkpoint_manager.replace_folder, checkpoint_manager.share_folder = replace, share  # type: ignore[assignment]
    try:
        yield
    finally:
        checkpoint_manager.replace_folder, checkpoint_manager.share_folder = before


def write_epochs(out: Path, before: int, number: int, way: str, protected: bool) -> None:
    """Write that many epochs, and one more until the given operation. Exit code 3: it took fewer operations."""
    with nullcontext() if protected else in_place():
        out.mkdir(exist_ok=True)
        for epoch in range(1, before + 1):
            save(checkpoint_manager_at(out, epoch))
        checkpoints = checkpoint_manager_at(out, before + 1)
        count = disturb(number, way)
        try:
            save(checkpoints)
        except Crash:
            # Nothing that Python does at its end may touch the files.
            os._exit(1)
        os._exit(3 if count["operations"] < number else 1)


def save(checkpoints: CheckpointManager) -> None:
    """The end of an epoch, until all is on the disk."""
    checkpoints.end_epoch()
    checkpoints.wait()


def packed(checkpoints: CheckpointManager) -> dict[str, bytes]:
    """The files of the checkpoint that it would write now."""
    files = pack(checkpoints.state.to_checkpoint(checkpoints.environment, checkpoints.settings))
    return {name: data if isinstance(data, bytes) else b"".join(data) for name, data in files.items()}


def wanted(epoch: int) -> dict[str, bytes]:
    return {
        name: data
        for name, data in packed(checkpoint_manager_at(Path("nowhere"), epoch)).items()
        if name.endswith(".safetensors")
    }


def _holds(out: Path, before: int, number: int, way: str, protected: bool) -> bool | None:
    """Whether last/ and best/ are of the epoch before or the new one; None where the write had fewer operations."""
    code = processes.finish(processes.start(write_epochs, out, before, number, way, protected))
    if code == 3:
        return None
    allowed = [wanted(epoch) for epoch in (before, before + 1) if epoch]
    found = {which: _read(out / which, protected) for which in ("best", "last")}
    whole = all(files in allowed or (files is None and not before) for files in found.values())
    # last/ says that best/ was written too.
    ordered = found["last"] != allowed[-1] or found["best"] == allowed[-1]
    if protected and whole:
        # What the dead process left is in nobody's way.
        replace_folder(out / "last", allowed[-1])
        return ordered and _read(out / "last", protected) == allowed[-1]
    return whole and ordered


def _read(folder: Path, protected: bool) -> dict[str, bytes] | None:
    """What a resumed run would go on from, if there is anything; damaged files are given as they are."""
    try:
        files = (
            read_folder(folder, fall_back=True)[1]
            if protected
            else {path.name: path.read_bytes() for path in folder.iterdir()}
        )
    except (CheckpointError, FileNotFoundError):
        return None
    return {name: data for name, data in files.items() if name.endswith(".safetensors")}


def operations(count: int | None, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """kill -9 and a crash at each operation on files of an epoch's end, or at ``count`` of them drawn at random.

    After each, best/ and last/ must hold the epoch before or the new one, whole. Control: files written in place.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = {before: pool.map(_length, [(folder / f"length{before}", before)])[0] for before in BEFORE}
        points = [(before, n, way) for before in BEFORE for n in range(1, lengths[before] + 1) for way in WAYS]
        # Draw where not all are wanted.
        if count is not None and count < len(points):
            points = random.Random(seed).sample(points, count)
        held = pool.map(_holds, [(folder / f"{b}-{n}-{way}", b, n, way, True) for b, n, way in points])
        controls = [(folder / f"c{n}-{way}", 1, n, way, False) for n in range(1, 40) for way in WAYS]
        if count is not None:
            controls = controls[: max(8, count // 8)]
        unprotected = [case for case in pool.map(_holds, controls) if case is not None]
    return {
        "n": len(points),
        "held": sum(case is True for case in held),
        "operations_of_one_write": lengths[2],
        "control_n": len(unprotected),
        "control_lost": unprotected.count(False),
    }


def _length(out: Path, before: int) -> int:
    """Operations that the write takes."""
    return processes.call(_count_operations, out, before)


def _count_operations(out: Path, before: int) -> int:
    out.mkdir()
    for epoch in range(1, before + 1):
        save(checkpoint_manager_at(out, epoch))
    checkpoints = checkpoint_manager_at(out, before + 1)
    count = disturb(10**9, "crash")
    save(checkpoints)
    return count["operations"]

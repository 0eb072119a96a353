"""A disk that is full or read-only, a folder that another run holds, settings and thread counts that changed."""

import errno
import json
import os
import random
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from resnetlab.core.errors import CheckpointError, StoppedError
from resnetlab.core.files import read_folder
from resnetlab.train.callbacks import NoCallback
from resnetlab.train.run import run_recipe
from resnetlab.train.signals import StopRequest
from tests.faults import processes
from tests.faults.operations import in_place
from tests.faults.processes import Pool
from tests.faults.runs import EPOCHS, SMALL, STEPS, WORDS, StopAt, command, equals, is_whole, kept, train

KINDS = {
    "no space (ENOSPC)": (5, "No space left on device; free some space there"),
    "file size limit": (5, "File too large; free some space there"),
    "full tmpfs": (5, "No space left on device; free some space there"),
    "read-only tmpfs": (5, "Read-only file system; choose another folder"),
    "two runs in one folder": (2, "is writing in"),
    "settings changed": (2, "training.lr: 0.05 → 0.01"),
    "other thread count": (0, "threads was 1 and is 2"),
}
"""What happens, the exit code that it must give, and what the message must say."""


def storage(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` runs that were stopped in their second epoch and go on under each kind of trouble in turn.

    It must be refused or reported, as ``KINDS`` says; the checkpoint before it must stay, to the bit; and once the
    trouble is over the run must go on to the bits of the undisturbed one. Control: files written in place.
    """
    pool = pool or Pool()
    kinds = [kind for kind in KINDS if "tmpfs" not in kind or can_mount()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        processes.run(train, folder / "undisturbed")
        expected = kept(folder / "undisturbed")
        jobs = [(folder / str(n), kinds[n % len(kinds)], f"{seed}/{n}", expected) for n in range(count)]
        cases = pool.map(_case, jobs)
        controls = [(folder / f"c{n}", f"{seed}/{n}") for n in range(max(1, count // 4))]
        lost = pool.map(_loses, controls)
    return {
        "n": count,
        "held": sum(not faults for faults in cases),
        "kinds": len(kinds),
        "skipped": [] if can_mount() else ["full tmpfs and read-only tmpfs: this user cannot mount"],
        "failures": sorted({f"{job[1]}: {fault}" for job, faults in zip(jobs, cases, strict=True) for fault in faults}),
        "control_n": len(controls),
        "control_lost": sum(lost),
    }


def can_mount() -> bool:
    with tempfile.TemporaryDirectory() as name:
        try:
            with mounted(Path(name)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def mounted(folder: Path) -> Iterator[Callable[[str], None]]:
    """A disk in memory; what is given sets its options anew, such as ``ro`` or ``size=100k``."""

    def mount(options: str) -> None:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(words, check=True, capture_output=True)

    mount("size=4m")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def begin(out: Path, step: int) -> None:
    """A run that is stopped behind a step."""
    stop = StopRequest()
    try:
        run_recipe(SMALL, out, resume=True, callback=StopAt(stop, step), stop=stop)
    except StoppedError:
        return
    raise AssertionError("the run was not stopped")


def _case(out: Path, kind: str, draw: str, expected: dict[str, Any]) -> list[str]:
    """What did not hold."""
    rng = random.Random(draw)
    out.mkdir()
    if "tmpfs" not in kind:
        return _troubled(out / "run", kind, rng, None, expected)
    with mounted(out) as remount:
        return _troubled(out / "run", kind, rng, remount, expected)


def _troubled(
    out: Path, kind: str, rng: random.Random, remount: Callable[[str], None] | None, expected: dict[str, Any]
) -> list[str]:
    processes.run(begin, out, rng.randint(12, 20))
    before = kept(out)
    # Beside what may be a disk that is full.
    log = out.parent.with_suffix(".log")
    holder = None
    if kind == "two runs in one folder":
        holder = _hold(out, log.with_suffix(".go"))
    if remount and kind == "full tmpfs":
        # Room for something, but for no checkpoint.
        remount(f"size={_used(out.parent) + rng.randrange(4096, 49152)}")
    if remount and kind == "read-only tmpfs":
        remount("ro")
    code = processes.finish(processes.start(troubled, out, kind, rng.randrange(10**6), errors=log))
    wanted, says = KINDS[kind]
    text = " ".join(log.read_text().split())
    faults = [f"exit code {code}"] if code != wanted else []
    faults += [f"said {text[-200:]}"] if says not in text else []
    if code == 0:
        # Other bits are allowed, and told. The run has come to its end all the same.
        return faults + ([] if is_whole(out) else ["not every epoch"])
    faults += ["the checkpoint before is lost"] if not _is_intact(out, before, expected) else []
    if remount:
        remount("rw,size=4m")
    if holder is not None:
        log.with_suffix(".go").touch()
        assert processes.finish(holder) == 0
    processes.run(train, out)
    faults += ["other bits"] if not equals(out, expected) else []
    return faults


def _is_intact(out: Path, before: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether last/ and best/ are what they were, or what an undisturbed run holds at the step that they are of now:
    before its disk was full the run may have saved a later one."""
    try:
        now = kept(out)
    except CheckpointError:
        return False
    return now == before or all(_is_of_its_step(out, which, now, expected) for which in ("last", "best"))


def _is_of_its_step(out: Path, which: str, now: dict[str, Any], expected: dict[str, Any]) -> bool:
    state = json.loads(read_folder(out / which, only=["state.json"])[1]["state.json"])
    step = STEPS * len(state["history"]) + state["step"]
    if step == STEPS * EPOCHS:
        return _of(now, which) == _of(expected, which)
    undisturbed = out.with_name(f"{out.name}-{which}-{step}")
    # The end of an epoch is what a run that stops one step later had saved before.
    ended = state["step"] == 0
    processes.run(begin, undisturbed, step + ended)
    if ended and which == "last":
        (undisturbed / "last").rename(undisturbed / "last.later")
        (undisturbed / "last.previous").rename(undisturbed / "last")
    return _of(now, which) == _of(kept(undisturbed), which)


def _of(found: dict[str, Any], which: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name.startswith(f"{which}/")}


def _used(folder: Path) -> int:
    room = os.statvfs(folder)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


def troubled(out: Path, kind: str, draw: int) -> None:
    """Go on with the run, on the command line, in trouble."""
    import torch

    words = ["train", *WORDS, "--out", str(out)]
    if kind == "no space (ENOSPC)":
        _fill_disk(1 + draw % 40)
    if kind == "file size limit":
        # Above what is printed, below the weights.
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192 + draw % 12000, resource.RLIM_INFINITY))
    if kind == "settings changed":
        words += ["--lr", "0.01"]
    if kind == "other thread count":
        torch.set_num_threads(2)
    command(*words)


def _fill_disk(number: int) -> None:
    """From the number-th flush on there is no space."""
    flush, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(handle)

    os.fsync = full  # type: ignore[assignment]


class WaitFor(NoCallback):
    """Says that a run is under way, and holds it there until a file exists."""

    def __init__(self, go: Path) -> None:
        self.go = go

    def on_step(self, step: int, steps: int, stats: object) -> None:
        self.go.with_suffix(".waits").touch()
        while not self.go.exists():
            time.sleep(0.01)


def hold(out: Path, go: Path) -> None:
    run_recipe(SMALL, out, resume=True, callback=WaitFor(go))


def _hold(out: Path, go: Path) -> Any:
    holder = processes.start(hold, out, go)
    while not go.with_suffix(".waits").exists():
        assert not processes.ends_within(holder, 0.01), "the first run ended"
    return holder


def without_protection(out: Path, draw: int) -> None:
    """The control: a size limit while files are written in place."""
    with in_place():
        troubled(out, "file size limit", draw)


def _loses(out: Path, draw: str) -> bool:
    rng = random.Random(draw)
    processes.run(begin, out, rng.randint(12, 20))
    processes.finish(processes.start(without_protection, out, rng.randrange(10**6), errors=out / "log"))
    try:
        load((out / "last" / "model.safetensors").read_bytes())
    except SafetensorError:
        return True
    return False

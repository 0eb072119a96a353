"""kill -9: at random moments of a run, and at every operation on files."""

import io
import os
import random
import signal
import tempfile
from pathlib import Path
from typing import Any

import torch

from resnetlab.train.checkpoint_manager import CheckpointManager
from tests.faults import processes
from tests.faults.processes import Pool
from tests.faults.runs import equals, kept, train, was_writing, with_training


def kill(count: int, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """kill -9 at ``count`` random moments; each run is then resumed to the end, every other one killed once more.

    It must end in the bits of the undisturbed run. Control: plain ``torch.save`` to one file, killed at a random moment
    too, or with a small count inside the write.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The first child also starts the parent of all.
        processes.run(train, folder / "first")
        seconds = processes.run(train, folder / "undisturbed")
        expected = kept(folder / "undisturbed")
        jobs = [(folder / str(number), f"{seed}/{number}", seconds, expected) for number in range(count)]
        cases = pool.map(_kill_and_resume, jobs)
        inside = count < 100
        lost = pool.map(_loses, [(folder / f"c{n}", f"{seed}/{n}", seconds, inside) for n in range(count)])
    return {
        "n": count,
        "held": sum(case["held"] for case in cases),
        "kills": sum(case["kills"] for case in cases),
        "kills_within_a_write": sum(case["writing"] for case in cases),
        "control_n": count,
        "control_lost": sum(lost),
    }


def _kill_and_resume(out: Path, draw: str, seconds: float, expected: dict[str, Any]) -> dict[str, int]:
    rng = random.Random(draw)
    kills, writing, attempt = 0, 0, 0
    wanted = rng.choice((1, 2))
    while kills < wanted:
        # A run that ended before its kill is no case: again, in another folder.
        here = out / str(attempt)
        if processes.kill(processes.start(train, here), rng.uniform(0, seconds)):
            kills += 1
            writing += was_writing(here)
        elif kills:
            break
        else:
            attempt += 1
    here = out / str(attempt)
    processes.run(train, here)
    return {"held": equals(here, expected), "kills": kills, "writing": writing}


def train_in_place(out: Path, inside: int | None) -> None:
    """The control: one file, written anew in its place after every step; ``inside`` kills within that write."""
    writes = 0

    def save(checkpoints: CheckpointManager) -> None:
        nonlocal writes
        writes += 1
        checkpoint = checkpoints.state.to_checkpoint(checkpoints.environment, checkpoints.settings)
        tensors = {"model": checkpoint.model, "training": checkpoint.training}
        if writes == inside:
            buffer = io.BytesIO()
            torch.save(tensors, buffer)
            (out / "last.pt").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        torch.save(tensors, out / "last.pt")

    CheckpointManager.save_within_epoch = CheckpointManager.end_epoch = save  # type: ignore[method-assign]
    train(out, with_training(save_every=1))


def _loses(out: Path, draw: str, seconds: float, inside: bool) -> bool:
    rng = random.Random(draw)
    if inside:
        processes.finish(processes.start(train_in_place, out, rng.randint(1, 20)))
    else:
        while not processes.kill(processes.start(train_in_place, out, None), rng.uniform(0, seconds)):
            (out / "record.json").unlink()
    if not (out / "last.pt").exists():
        return False
    try:
        torch.load(out / "last.pt", weights_only=True)
    except Exception:
        return True
    return False

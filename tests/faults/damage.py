"""Flipped bits and truncations of checkpoints on the disk."""

import random
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load

from resnetlab.core.errors import CheckpointError
from resnetlab.core.files import read_folder
from tests.faults import processes
from tests.faults.operations import checkpoint_manager_at, packed, save
from tests.faults.processes import Pool
from tests.faults.runs import Notes

SHARE = 200
"""Cases of one child."""
WIDTHS = (16, 32, 64)
"""Those of the paper: in a smaller network the names are half of a file."""


def damage(count: int, seed: int, pool: Pool | None = None) -> dict[str, int]:
    """``count`` flipped bits and truncations, spread over the files of a checkpoint, each in a fresh copy.

    Each must be detected, and a resume must go on from the version before and say so in a note. Control: weights with
    a flipped bit are read without the sums.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        jobs = [
            (_damage, Path(name) / str(first), f"{seed}/{first}", min(SHARE, count - first))
            for first in range(0, count, SHARE)
        ]
        shares = pool.map(processes.call, jobs)
    return {key: sum(share[key] for share in shares) for key in shares[0]}


def _damage(out: Path, draw: str, count: int) -> dict[str, int]:
    rng = random.Random(draw)
    found = dict.fromkeys(
        ("n", "held", "flips", "truncations", "detected", "fell_back", "control_n", "control_lost"), 0
    )
    for epoch in (1, 2):
        save(checkpoint_manager_at(out, epoch, WIDTHS))
    before = read_folder(out / "last.previous")[1]
    paths = sorted((out / "last").iterdir())
    for number in range(count):
        path = paths[number % len(paths)]
        whole = path.read_bytes()
        cut = rng.random() < 0.5
        path.write_bytes(_truncated(whole, rng) if cut else _flipped(whole, rng))
        found["n"] += 1
        found["truncations" if cut else "flips"] += 1
        detected, fell_back = _is_detected(out / "last"), _falls_back(out, before)
        found["detected"] += detected
        found["fell_back"] += fell_back
        found["held"] += detected and fell_back
        if path.suffix == ".safetensors" and not cut:
            found["control_n"] += 1
            found["control_lost"] += _passes_without_sums(path)
        path.write_bytes(whole)
    assert read_folder(out / "last")[0] == out / "last"
    shutil.rmtree(out)
    return found


def _flipped(whole: bytes, rng: random.Random) -> bytes:
    changed = bytearray(whole)
    changed[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncated(whole: bytes, rng: random.Random) -> bytes:
    # The last byte of a manifest is a newline, without which it says the same: two bytes go at least.
    return whole[: rng.randrange(len(whole) - 1)]


def _is_detected(folder: Path) -> bool:
    try:
        read_folder(folder)
    except CheckpointError:
        return True
    return False


def _falls_back(out: Path, before: dict[str, bytes]) -> bool:
    """Whether a resumed run goes on from the version before, and says so."""
    checkpoints, notes = checkpoint_manager_at(out, 3, WIDTHS), Notes()
    checkpoints.resume(notes)
    same = packed(checkpoints)["model.safetensors"] == before["model.safetensors"]
    return same and len(checkpoints.state.history) == 1 and any("resuming from" in note for note in notes.notes)


def _passes_without_sums(path: Path) -> bool:
    try:
        load(path.read_bytes())
    except SafetensorError:
        return False
    return True

"""A rank of several that is lost, and a process that reads images."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conftest import ROOT
from tests.faults.processes import Pool
from tests.faults.runs import WORDS, equals, kept

EPOCHS = 4
TORCHRUN = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "3", "-m", "resnetlab", "train")
PATIENCE = 300.0


def rank(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` runs of two ranks under torchrun, one rank of which is killed at a random moment.

    torchrun starts both again, and the run must go on by itself to the bits of the undisturbed run of two ranks.
    Control: without a restart it does not end.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        assert _ended(_torchrun(folder / "undisturbed")) == 0
        expected = kept(folder / "undisturbed")
        # Two runs of two ranks on two cores would only wait for each other.
        cases = Pool(1, pool.tick).map(_kill_one, [(folder / str(n), f"{seed}/{n}", 3, expected) for n in range(count)])
        control = _kill_one(folder / "control", f"{seed}/control", 0, expected)
    return {
        "n": count,
        "held": sum(held for held, _ in cases),
        "killed_before_the_end": sum(killed for _, killed in cases),
        "control_n": 1,
        "control_lost": int(not control[0]),
    }


def _torchrun(out: Path, restarts: int = 3) -> "subprocess.Popen[bytes]":
    words = [word for word in WORDS if word not in ("--resume", "auto")] + ["--epochs", str(EPOCHS)]
    options = list(TORCHRUN)
    options[options.index("--max-restarts") + 1] = str(restarts)
    out.parent.mkdir(exist_ok=True)
    with open(out.with_suffix(".log"), "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, *words, "--out", str(out)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _ended(process: "subprocess.Popen[bytes]") -> int:
    try:
        return process.wait(PATIENCE)
    finally:
        process.kill()


def _kill_one(out: Path, draw: str, restarts: int, expected: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the run ended in the expected bits, and whether a rank was killed before its end."""
    rng = random.Random(draw)
    process = _torchrun(out, restarts)
    begun = time.monotonic()
    while not (out / "last" / "manifest.json").exists():
        assert process.poll() is None, out.with_suffix(".log").read_text()[-2000:]
        assert time.monotonic() - begun < PATIENCE
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.4))
    killed = not (out / "record.json").exists()
    lost = _ranks(process.pid)[rng.choice((0, 1))]
    os.kill(lost, signal.SIGKILL)
    code = _ended(process)
    return code == 0 and equals(out, expected, EPOCHS), killed


def _ranks(launcher: int) -> dict[int, int]:
    """The process of each rank that the launcher has started."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            words = (entry / "environ").read_bytes().split(b"\0") if parent == launcher else []
        except OSError:
            continue
        found |= {int(word.partition(b"=")[2]): int(entry.name) for word in words if word.startswith(b"RANK=")}
    return found

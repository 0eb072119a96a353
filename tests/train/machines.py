"""Two machines on one: each a network namespace of its own, with a cable between; started by ``test_machines.py``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from resnetlab.cli import run
from resnetlab.train import distributed
from tests.conftest import ROOT

NAMES = (f"first-{os.getpid()}", f"other-{os.getpid()}")
CABLE = ("rl-first", "rl-other")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
SECONDS = "SECONDS_OF_PATIENCE"


def ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


@contextmanager
def two_machines() -> Iterator[bool]:
    """Whether there are two network namespaces with a cable between, for the block."""
    made = shutil.which("ip") is not None and all(ip("netns", "add", name) for name in NAMES)
    try:
        made = made and ip(
            "link", "add", CABLE[0], "netns", NAMES[0], "type", "veth", "peer", CABLE[1], "netns", NAMES[1]
        )
        for name, end, address in zip(NAMES, CABLE, ADDRESSES, strict=True) if made else ():
            made = made and ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            made = made and ip("-n", name, "link", "set", end, "up") and ip("-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        for name in NAMES if shutil.which("ip") else ():
            ip("netns", "del", name)


def start(number: int, words: list[str], patience: float) -> "subprocess.Popen[str]":
    """The machine of that number starts its rank of two."""
    launch = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "run"]
    # Whose rendezvous it is, torchrun knows by the name of the machine; here both have one name.
    launch += ["--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--rdzv-conf", f"is_host={1 - number}"]
    launch += ["--local-addr", ADDRESSES[number]]
    command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "tests.train.machines", *words]
    settings = {"GLOO_SOCKET_IFNAME": CABLE[number], "OMP_NUM_THREADS": "1", SECONDS: str(patience)}
    return subprocess.Popen(
        ["ip", "netns", "exec", NAMES[number], *command],
        cwd=ROOT,
        env=os.environ | settings | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ranks_of(launcher: int) -> list[int]:
    """The processes that torchrun has started on a machine."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == launcher:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    distributed.PATIENCE = timedelta(seconds=float(os.environ[SECONDS]))
    run()

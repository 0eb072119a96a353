"""Runs that the system gives no more address space, at whatever point of their way."""

import ctypes
import random
import resource
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.faults import processes
from tests.faults.processes import Pool
from tests.faults.runs import WORDS, command, equals, kept, train

LEAST, MOST = 1 << 20, 32 << 20
"""Bytes that a run may map beyond those of its start. What it takes lies in between."""
MALLOC = ctypes.CDLL(None).malloc
MALLOC.restype, MALLOC.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
ABORTED = (-6, -11)
"""A library that ends the process itself, as OpenBLAS and C++ do where they get no memory: nothing can be told then."""


def memory(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` runs of the command, with its page, under a random limit of their address space.

    Each must end with 0, or with 5 and one line without a traceback; and without the limit it must be resumed to the
    bits of the undisturbed run. Control: the same, without the place where such faults become a message.
    """
    pool = pool or Pool()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        processes.run(train, place / "undisturbed")
        expected = kept(place / "undisturbed")
        cases = pool.map(_case, [(place / str(n), f"{seed}/{n}", True, expected) for n in range(count)])
        controls = pool.map(
            _case, [(place / f"c{n}", f"{seed}/{n}", False, expected) for n in range(max(4, count // 4))]
        )
    ended = [case["code"] for case in cases]
    refused = [case for case in controls if case["code"] != 0]
    return {
        "n": count,
        "held": sum(case["held"] for case in cases),
        "finished": ended.count(0),
        "refused": ended.count(5),
        "aborted by a library": sum(code in ABORTED for code in ended),
        "codes": sorted(map(str, set(ended))),
        "control_n": len(refused),
        "control_lost": sum(not case["held"] for case in refused),
    }


def _case(out: Path, draw: str, protected: bool, expected: dict[str, Any]) -> dict[str, Any]:
    log = out.with_suffix(".log")
    extra = random.Random(draw).randint(LEAST, MOST)
    code = processes.finish(processes.start(limited, out, extra, protected, errors=log))
    text = log.read_text()
    told = code == 0 or code in ABORTED or (code == 5 and "error:" in text)
    processes.run(train, out)
    return {"code": code, "held": told and "Traceback" not in text and equals(out, expected)}


def limited(out: Path, extra: int, protected: bool) -> None:
    """The command, which may map ``extra`` bytes more than it has mapped."""
    # Under the name of the module stands its function.
    module: Any = import_module("resnetlab.cli.main")
    if not protected:
        module.told_as = lambda _: None
    # The fork server has trained before: what it freed would be enough, so it is taken first.
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped, resource.RLIM_INFINITY))
    for size in (1 << 20, 1 << 16, 1 << 12, 1 << 9):
        while MALLOC(size):
            pass
    resource.setrlimit(resource.RLIMIT_AS, (mapped + extra, resource.RLIM_INFINITY))
    command("train", *WORDS, "--out", str(out))

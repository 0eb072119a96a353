"""``resnetlab train --tune``: the process begins again with what makes training faster on a CPU, and says what that is.

An allocator and the places of threads are read when a process starts, so they cannot be set in one that runs.

- tcmalloc: the heap of glibc gives large tensors back to the system after each use, and every page of the next one is
  a page fault.
- Threads of OpenMP stay on a core each, and spin a little before they sleep. What trains is not bound, and neither is
  what starts later, such as processes that decode images or compilers: bound threads hand their one core on.

Neither changes a number: the threads are as many as before.
"""

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from ctypes.util import find_library
from pathlib import Path

LIBRARIES = ("tcmalloc_minimal", "tcmalloc")
TUNED = "RESNETLAB_TUNED"
"""Environment variable of a process that began again: the cores that it had before, where its threads are bound."""
BOUND = {"OMP_PROC_BIND": "close", "OMP_PLACES": "cores", "GOMP_SPINCOUNT": "100000"}
BINDING = (*BOUND, "GOMP_CPU_AFFINITY", "KMP_AFFINITY")
HOW = "apt-get install libtcmalloc-minimal4, dnf install gperftools-libs, or conda install gperftools"


def begin_tuned(words: Sequence[str]) -> None:
    """Replace this process by the same one, tuned, where the ``words`` of the command ask for it with --tune and that
    changes anything."""
    if words[:1] != ["train"] or "--tune" not in words or sys.platform != "linux" or TUNED in os.environ:
        return
    changes = tuning(os.environ, find_tcmalloc(), os.sched_getaffinity(0))
    if changes:
        # Without another process nothing is tuned, and the command says so.
        with suppress(OSError):
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | changes)


def tuning(environment: Mapping[str, str], tcmalloc: str | None, cores: Collection[int]) -> dict[str, str]:
    """The variables of a tuned process on these ``cores`` that ``environment`` lacks; what a user has set stays.

    Threads are not bound where there is one, nor where torchrun has started several ranks on this machine: all of them
    would be bound to the first cores.
    """
    changes = {}
    preloaded = environment.get("LD_PRELOAD", "")
    if tcmalloc and "malloc" not in preloaded:
        changes["LD_PRELOAD"] = " ".join(filter(None, (tcmalloc, preloaded)))
    several = len(cores) > 1 and environment.get("OMP_NUM_THREADS") != "1"
    alone = int(environment.get("LOCAL_WORLD_SIZE", "1")) == 1
    if not (several and alone) or any(name in environment for name in BINDING):
        return changes | {TUNED: ""} if changes else {}
    return changes | BOUND | {TUNED: ",".join(map(str, sorted(cores)))}


def find_tcmalloc() -> str | None:
    """The library, in the folder of this Python or among those of the system."""
    here = [path for name in LIBRARIES for path in sorted(Path(sys.prefix, "lib").glob(f"lib{name}.so*"))]
    return str(here[0]) if here else next(filter(None, map(find_library, LIBRARIES)), None)


def free_main_thread() -> None:
    """Let the main thread, and with it whatever it starts, run on all cores again, once OpenMP has been loaded."""
    cores = os.environ.get(TUNED)
    if cores and sys.platform == "linux":
        os.sched_setaffinity(0, map(int, cores.split(",")))
        for name in BOUND:
            os.environ.pop(name, None)


def tuning_line() -> str:
    """In words, what is tuned in this process, and what could be."""
    if sys.platform != "linux":
        return "tune: nothing is known to help a CPU of this system"
    loaded = "tcmalloc" in Path("/proc/self/maps").read_text()
    allocator = "tcmalloc allocates" if loaded else f"tcmalloc is not installed and would help ({HOW})"
    threads = "threads stay on their cores" if os.environ.get(TUNED) else "threads are not bound"
    return f"tune: {allocator}; {threads}"

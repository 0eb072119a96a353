"""The heap of a process that trains."""

import os
import subprocess
import sys

import pytest

from resnetlab.train.heap import keep_freed_memory

STEPS = 5
ALLOCATE = f"""
import resource, sys
import numpy as np
from resnetlab.train.heap import keep_freed_memory

def step():
    # 128 MiB in tensors of 8.
    kept = [np.ones(2**20) for _ in range(16)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
step()
before = faults()
for _ in range({STEPS}):
    step()
print(kept, faults() - before)
"""
PAGES = STEPS * 128 * 2**20 // 4096
"""Pages of what the steps allocate, of the usual size."""


def allocate(word: str, **variables: str) -> tuple[str, int]:
    """What was said of the heap, and the page faults of the steps."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    found = subprocess.run(
        [sys.executable, "-c", ALLOCATE, word], env=clean | variables, capture_output=True, text=True, check=True
    )
    kept, faults = found.stdout.split()
    return kept, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_found_again_without_page_faults() -> None:
    kept, faults = allocate("keep")
    assert kept == "True"
    assert faults < PAGES / 100
    # The control: left to itself the heap gives the pages back, and takes most of them again.
    assert allocate("leave")[1] > PAGES / 4


def test_what_a_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    assert not keep_freed_memory()

"""The heap of a process that trains: it keeps what is freed, and the next step's tensors find their pages there.

Left to itself glibc gives the memory of large tensors back to the system after each use, and every page of the next one
is a page fault: up to a quarter of a step of a small network.
"""

import ctypes
import os
import sys
from contextlib import suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
"""``M_TRIM_THRESHOLD``, ``M_TOP_PAD`` and ``M_MMAP_THRESHOLD`` of glibc's ``mallopt``."""
LARGEST = 32 * 2**20
"""Bytes of the largest tensor that stays; it is the most that glibc takes. Larger ones are still given back."""
GROWTH = 64 * 2**20
"""Bytes by which the heap grows at least."""


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the rest of this process, and say whether it does.

    The heap then stays at its peak until the process ends. What a user has set by a variable ``MALLOC_…`` or
    ``GLIBC_TUNABLES`` stays, and another C library is left alone.
    """
    if sys.platform != "linux" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        return all([mallopt(MMAP_THRESHOLD, LARGEST), mallopt(TRIM_THRESHOLD, -1), mallopt(TOP_PAD, GROWTH)])
    return False

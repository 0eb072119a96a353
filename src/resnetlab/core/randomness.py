"""Randomness as a function of (seed, what it is for), never of what was drawn before it.

Two parameters, two epochs or two samples each have a stream of their own. So a plain and a residual net share the
weights of equal names, and a resumed run sees the images that it would have seen.
"""

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def derive_seed(seed: int, *purpose: str | int, bits: int = 64) -> int:
    """An integer of ``bits`` bits (at most 256): the head of SHA-256 over the seed and the purpose.

    Equal on every machine and in every process, unlike Python's ``hash``.
    """
    text = "\x1f".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[: bits // 8], "big")


def generator(seed: int, *purpose: str | int) -> "np.random.Generator":
    """A numpy generator (PCG64) for one purpose, seeded with all 256 bits, so that no two streams meet by chance.

    torch's own CPU generator takes 32 bits of a seed, which would make two of 100,000 streams equal.
    """
    import numpy as np

    return np.random.default_rng(derive_seed(seed, *purpose, bits=256))

import gc
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from resnetlab.data.dataset import ImageData, Moments, Split

# Two test processes share two cores; and one thread makes every sum's order, so its bits, the same anywhere.
torch.set_num_threads(1)
# Commands that tests start, too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
MEMORY, ROOM = Path("/dev/shm"), 2 * 2**30
"""A file system in memory, and the free bytes that the tests want there."""


def pytest_configure() -> None:
    """Temporary files go where no fsync waits for a disk, if there is room: what the tests are about is what is written
    and in which order, and that is the same there. TMPDIR names another place."""
    if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_collection_finish() -> None:
    """The collector of cycles passes over what was imported, and comes less often: networks of 1,000 layers are a
    million objects and none of their cycles is large."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory) -> Iterator[None]:
    """Indices of folders are kept where the tests write, and not where the user's are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESNETLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _fixed_draws() -> None:
    """What a test draws itself is the same in every run, alone or among others."""
    torch.manual_seed(0)


def make_data(
    train: int = 96, test: int = 40, side: int = 8, classes: int = 3, seed: int = 0, validation: int = 0
) -> ImageData:
    """Images of noise with one bright row for each class: small, and learnt in a few steps."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> Split:
        labels = np.arange(n) % classes
        images = rng.integers(0, 100, (n, 1, side, side))
        images[np.arange(n), 0, labels] += 120
        return Split(images=torch.from_numpy(images.astype(np.uint8)), labels=torch.from_numpy(labels))

    names = tuple(f"row {n}" for n in range(classes))
    made = ImageData(source="made", train=split(train), test=split(test), classes=names)
    return replace(made, validation=split(validation)) if validation else made


@pytest.fixture(scope="session")
def data() -> ImageData:
    return make_data()


def moments_of(images: torch.Tensor) -> Moments:
    """Those of images ``(N, C, H, W)``."""
    flat = images.flatten(2).numpy().astype(np.uint64)
    return Moments(pixels=flat.shape[2], sums=flat.sum(axis=2), squares=(flat**2).sum(axis=2))


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def resnetlab() -> Command:
    """Runs the command in a process of its own, with one thread."""

    def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "resnetlab", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
            timeout=120,
            check=False,
        )

    return run

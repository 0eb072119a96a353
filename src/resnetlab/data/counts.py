"""How many training images a set of arrays has, before it is read."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from resnetlab.data.config import SCALE

CIFAR = 50_000


def count_images(source: str) -> int:
    """Training images of a source of arrays such as ``cifar10:FOLDER``, by what its format or a header says.

    0 where that says nothing, as for a file that is missing or damaged: what is wrong with it is told when it is read.
    """
    scheme, _, place = source.partition(":")
    if scheme in ("cifar10", "cifar100"):
        return CIFAR
    counters: dict[str, Callable[[str], int]] = {"idx": _count_idx, "npz": _count_npz}
    try:
        return counters[scheme](place) if scheme in counters else 0
    except Exception:  # files that are damaged are answered with a dozen kinds of error
        return 0


def _count_idx(place: str) -> int:
    from resnetlab.data.idx import FILES, open_file

    with open_file(Path(place), f"{FILES['train']}-labels-idx1") as stream:
        return int(struct.unpack(">I", stream.read(8)[4:])[0])


def _count_npz(place: str) -> int:
    from resnetlab.data.dataset import TEST_SHARE
    from resnetlab.data.npz import PARTS, WHOLE, read_header

    with zipfile.ZipFile(place if Path(place).is_file() else place.partition(SCALE)[0]) as archive:
        parts = {parts["train"][1]: 1.0 for parts in PARTS} | {labels: 1 - TEST_SHARE for _, labels in WHOLE}
        name = next(name for name in parts if f"{name}.npy" in archive.namelist())
        with archive.open(f"{name}.npy") as stream:
            (count, *_), _, _ = read_header(stream)
    return int(parts[name] * count)

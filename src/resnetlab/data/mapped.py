"""A split whose pixels stay in their file, which is mapped into memory: what no batch asks for is not read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

import numpy as np
import torch
from torch import Tensor

from resnetlab.data.numbered import NumberedSplit
from resnetlab.data.transforms import ResizedCrop

LOCAL_HEADER = 30
"""Bytes before the name of an entry of a zip. Source: APPNOTE.TXT of PKWARE, 4.3.7."""


def map_array(path: Path, entry: ZipInfo, start: int, shape: tuple[int, ...]) -> "np.memmap[Any, np.dtype[np.uint8]]":
    """The uint8 values of a zip's ``entry``, stored as it is, where they lie: ``start`` bytes behind its beginning."""
    with open(path, "rb") as stream:
        stream.seek(entry.header_offset)
        head = stream.read(LOCAL_HEADER)
    names = int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little")
    # Copied on writing, so that torch takes it; nobody writes.
    return np.memmap(path, np.uint8, "c", entry.header_offset + LOCAL_HEADER + names + start, shape)


@dataclass(frozen=True, kw_only=True)
class MappedSplit(NumberedSplit):
    """The images ``numbers`` of ``array`` ``(N, C, H, W)``, uint8, with their ``labels``."""

    array: np.ndarray[Any, np.dtype[np.uint8]]

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        """As ``Images.batches``; where the file has the channels last, so have they."""
        for which in plan:
            images = torch.from_numpy(self.array[self.numbers[which.numpy()]]).to(self.labels.device)
            yield images if crop is None else crop.cut(images, which)

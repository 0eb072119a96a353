"""A split whose images stay encoded, in files or in memory, and are decoded when a batch asks for them."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from resnetlab.core.errors import DataError, printable
from resnetlab.data.config import OnBad
from resnetlab.data.dataset import Chosen, Encoding, Moments, Normalisation, Numbers, others
from resnetlab.data.decode import read_image, reason
from resnetlab.data.processes import Workers
from resnetlab.data.transforms import ResizedCrop


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """Images that are decoded, as RGB squares of ``side``, when they are asked for.

    ``moments`` are of their grey levels, and ``identity`` is a digest of their files; both come from whoever looked at
    them. ``names`` are what they are called where they are shown. ``workers`` processes decode ahead; with 0 it is done
    in this process. What comes out is the same. ``waiting`` are the processes between two passes: splits of one set
    have one list, and with it the same processes. With ``on_bad`` "skip" an image that cannot be read is replaced by
    the next of its class that can, in every epoch alike, and named in a warning.
    """

    store: Sequence[bytes | Path]
    labels: Tensor
    side: int
    moments: Moments
    identity: str
    encoding: Encoding
    workers: int = 0
    names: Sequence[str] | None = None
    on_bad: OnBad = "error"
    waiting: list[Workers] = field(default_factory=list, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.side, self.side

    def to(self, device: torch.device) -> "EncodedSplit":
        return replace(self, labels=self.labels.to(device))

    def divide(self, numbers: Tensor) -> "tuple[EncodedSplit, EncodedSplit]":
        """As ``Images.divide``; no image is opened."""
        return self._only(others(numbers, len(self))), self._only(numbers)

    def _only(self, numbers: Tensor) -> "EncodedSplit":
        which = numbers.numpy()
        return replace(
            self,
            store=Chosen(self.store, which),
            labels=self.labels[numbers.to(self.labels.device)],
            moments=self.moments.only(which),
            identity=hashlib.sha256(self.identity.encode() + which.tobytes()).hexdigest(),
            names=self.names and Chosen(self.names, which),
        )

    def relabelled(self, labels: Tensor) -> "EncodedSplit":
        return replace(self, labels=labels)

    def statistics(self) -> Normalisation:
        return self.moments.statistics()

    @property
    def brightest(self) -> int:
        return 255

    def feed(self, content: "hashlib._Hash") -> None:
        content.update(f"{self.identity} {self.side}".encode())
        content.update(self.labels.cpu().contiguous().numpy().data)

    def batches(self, plan: Sequence[Tensor], crop: ResizedCrop | None = None) -> Iterator[Tensor]:
        """As ``Images.batches``, in the memory format channels_last; a crop's box is one of the image's own size,
        before it is resized.

        Raises ``DataError`` for an image that cannot be read, unless ``on_bad`` is to skip it, and where a worker was
        killed.
        """
        requests = _Requests(plan, self.store, crop and crop.to(torch.device("cpu")))
        # An error keeps its frames, and with them a generator that is not closed would keep its workers.
        with closing(self._decoded(requests)) as made:
            for which, (images, failures) in zip(plan, made, strict=True):
                for place, why in failures:
                    line = f"{self._called(int(which[place]))} cannot be read: {why}"
                    if self.on_bad == "error" or (found := self._next_readable(int(which[place]), requests)) is None:
                        raise DataError(line)
                    images[place] = found
                    warn(f"{line}; the next image of its class is taken in its place", stacklevel=2)
                yield images.permute(0, 3, 1, 2).to(self.labels.device)

    def _decoded(self, requests: "_Requests") -> "Generator[Batch]":
        # A single batch is not worth a start of processes.
        images = _Images(requests.store, self.side)
        if not self.workers or (len(requests) < 2 and not self.waiting):
            yield from (images[request] for request in requests)
            return
        workers = self._workers(images)
        try:
            yield from workers.answers(requests)
        finally:
            # Of two passes at a time, the processes of one are enough for the next.
            if workers.usable and not self.waiting:
                self.waiting.append(workers)
            else:
                workers.end()

    def _workers(self, images: "_Images") -> Workers:
        while self.waiting:
            workers = self.waiting.pop()
            if workers.usable and workers.source == images:
                return workers
            workers.end()
        return Workers(images, self.workers)

    def _next_readable(self, sample: int, requests: "_Requests") -> Tensor | None:
        """The next image of the class of ``sample``, in the order of the split and around its end, that can be read."""
        labels = self.labels.cpu().numpy()
        members = np.flatnonzero(labels == labels[sample])
        images = _Images(requests.store, self.side)
        for other in np.roll(members, -int(np.searchsorted(members, sample)))[1:]:
            pixels, failures = images[requests.of(torch.from_numpy(other[None]))]
            if not failures:
                return pixels[0]
        return None

    def _called(self, sample: int) -> str:
        cell = self.store[sample]
        if isinstance(cell, Path):
            return printable(cell)
        return self.names[sample] if self.names else f"image {sample}"


Request = tuple[Numbers, Numbers | None, tuple[float, float]]
"""Numbers of images in the store, and what ``decode`` needs for their crops."""
Batch = tuple[Tensor, list[tuple[int, str]]]
"""Images, and the places of those that cannot be read, with the reason."""


class _Requests(Sequence[Request]):
    """What the batches of a plan ask of ``store``: the one that views look at, which all splits of a set share."""

    def __init__(self, plan: Sequence[Tensor], store: Sequence[bytes | Path], crop: ResizedCrop | None) -> None:
        self.plan, self.store, self.crop = plan, store, crop
        self.numbers: Numbers | None = None
        if isinstance(store, Chosen):
            self.store, self.numbers = store.values, store.numbers

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> Request:  # type: ignore[override]  # no slices
        return self.of(self.plan[number])

    def of(self, which: Tensor) -> Request:
        """What a batch of those samples asks."""
        numbers = which.numpy() if self.numbers is None else self.numbers[which.numpy()]
        if self.crop is None:
            return numbers, None, (1, 1)
        return numbers, self.crop.uniforms[which].numpy(), self.crop.scale


class _Images(Dataset[Any]):
    """Batches ``(B, H, W, 3)`` of a store, each in one piece of memory, which a worker shares with its parent."""

    def __init__(self, store: Sequence[bytes | Path], side: int) -> None:
        self.store, self.side = store, side

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Images) and other.store is self.store and other.side == self.side

    def __getitem__(self, request: Request) -> Batch:
        numbers, uniforms, scale = request
        images = _empty((len(numbers), self.side, self.side, 3))
        pixels, failures = images.numpy(), []
        for place, number in enumerate(numbers.tolist()):
            box = None if uniforms is None else uniforms[place].tolist()
            try:
                pixels[place] = read_image(self.store[number], self.side, box, scale).pixels
            except Exception as error:  # a damaged image can fail in any way
                # In words: the loader would add the traceback of its worker to an exception.
                failures.append((place, reason(error)))
        return images, failures


def _empty(shape: tuple[int, ...]) -> Tensor:
    images = torch.empty(0, dtype=torch.uint8)
    if get_worker_info() is None:
        return images.new_empty(shape)
    # Else the loader would copy the batch to where its parent can read it.
    shared = torch.UntypedStorage._new_shared(prod(shape))  # type: ignore[no-untyped-call]
    return images.set_(shared).view(shape)

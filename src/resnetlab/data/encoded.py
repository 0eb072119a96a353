"""A split whose images stay encoded, in files or in memory, and are decoded when a batch asks for them."""

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter, warn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnetlab.core.errors import DataError
from resnetlab.data.config import OnBad
from resnetlab.data.dataset import Chosen, Encoding, Moments, Normalisation, others
from resnetlab.data.decode import Pixels, decode
from resnetlab.data.transforms import ResizedCrop

LEFT_TO_PARENT = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, kw_only=True)
class EncodedSplit:
    """Images that are decoded, as RGB squares of ``side``, when they are asked for.

    ``moments`` are of their grey levels, and ``identity`` is a digest of their files; both come from whoever looked at
    them. ``names`` are what they are called where they are shown. ``workers`` processes decode ahead; with 0 it is done
    in this process. What comes out is the same. With ``on_bad`` "skip" an image that cannot be read is replaced by the
    next of its class that can, in every epoch alike, and named in a warning.
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
        """As ``Images.batches``; a crop's box is one of the image's own size, before it is resized.

        Raises ``DataError`` for an image that cannot be read, unless ``on_bad`` is to skip it, and where a worker was
        killed.
        """
        numbers = [which.tolist() for which in plan]
        batches = _Batches(self, numbers, crop and crop.to(torch.device("cpu")))
        workers = min(self.workers, len(plan))
        made = in_processes(batches, workers) if workers else (batches[number] for number in range(len(plan)))
        # An error keeps its frames, and with them a generator that is not closed would keep its workers.
        with closing(made):
            for images in made:
                if isinstance(images, str):
                    raise DataError(images)
                images, replaced = images
                for line in replaced:
                    warn(line, stacklevel=2)
                yield images.to(self.labels.device)


class _Batches(Dataset[Any]):
    """Batch ``number`` of a plan as ``(B, 3, H, W)``, with a line for each image that was replaced, or the message of
    the error that it meets.

    A message, since the loader would add the traceback of its worker to an exception.
    """

    def __init__(self, split: EncodedSplit, plan: list[list[int]], crop: ResizedCrop | None) -> None:
        self.split, self.plan, self.crop = split, plan, crop

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> tuple[Tensor, list[str]] | str:
        which = self.plan[number]
        images = np.empty((len(which), *self.split.shape), np.uint8)
        replaced: list[str] = []
        for place, sample in enumerate(which):
            try:
                images[place] = self._decoded(sample).transpose(2, 0, 1)
            except DataError as error:
                if self.split.on_bad == "error" or (found := self._next_readable(sample)) is None:
                    return str(error)
                images[place] = found.transpose(2, 0, 1)
                replaced.append(f"{error}; the next image of its class is taken in its place")
        return torch.from_numpy(images), replaced

    def _next_readable(self, sample: int) -> Pixels | None:
        """The next image of the class of ``sample``, in the order of the split and around its end, that can be read."""
        labels = self.split.labels.cpu().numpy()
        members = np.flatnonzero(labels == labels[sample])
        for other in np.roll(members, -int(np.searchsorted(members, sample)))[1:].tolist():
            with suppress(DataError):
                return self._decoded(other)
        return None

    def _decoded(self, sample: int) -> Pixels:
        content, names = self.split.store[sample], self.split.names
        name = "" if isinstance(content, Path) else names[sample] if names else f"image {sample}"
        if self.crop is None:
            return decode(content, self.split.side, name=name)
        return decode(content, self.split.side, self.crop.uniforms[sample].tolist(), scale=self.crop.scale, name=name)


def in_processes(batches: Dataset[Any], workers: int, seed: int = 0) -> Generator[Any]:
    """The batches in order, made ahead by processes that are gone when this generator is; ``seed`` decides what they
    draw. A batch that failed is the message of its error."""
    loader, processes = _start(batches, workers, seed)
    try:
        yield from loader
    except (RuntimeError, OSError, EOFError) as error:
        raise DataError(
            "a process that decodes images broke down or was killed, most often because memory ran out "
            f"({(str(error) or type(error).__name__).splitlines()[0]}); use fewer --workers or smaller batches. "
            "A run that is resumed goes on from its last checkpoint"
        ) from error
    finally:
        # The loader's own end, which waits for its workers; then whatever did not heed it.
        del loader
        for process in processes:
            process.kill()
            process.join()


def _start(batches: Dataset[Any], workers: int, seed: int) -> tuple[Iterator[Any], set[BaseProcess]]:
    others = set(multiprocessing.active_children())
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD) if in_main else None
    with catch_warnings():
        # Of more workers than cores, and of forking beside threads: the workers touch nothing that a thread may hold.
        simplefilter("ignore")
        loader = DataLoader(
            batches,
            batch_size=None,
            num_workers=workers,
            worker_init_fn=partial(_begin_worker, os.getpid()),
            # Where it can, a worker starts as a copy: at once, and with no copy of a million names sent to it.
            multiprocessing_context="fork" if sys.platform == "linux" else None,
            # Without one of its own the loader draws from the global generator.
            generator=torch.Generator().manual_seed(seed),
        )
        # Held back until a worker ignores them; it starts with what its parent holds back.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, LEFT_TO_PARENT)
        try:
            started = iter(loader)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
    if in_main:
        # The loader's handler would raise wherever the program is when a worker dies, not where it waits for a batch.
        signal.signal(signal.SIGCHLD, handler)
    return started, set(multiprocessing.active_children()) - others


def _begin_worker(parent: int, _worker: int) -> None:
    """Leave Ctrl-C and SIGTERM, which reach the whole group, to the parent, which decides what becomes of its workers.

    torch's watchdog ends a worker whose parent is gone, but takes for the parent whoever it finds at its start, which
    comes after this: a worker whose parent was killed by then would wait for good. So another one knows the parent.
    """
    for number in LEFT_TO_PARENT:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, LEFT_TO_PARENT)
    _end_without(parent)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while True:
        _end_without(parent)
        time.sleep(1)


def _end_without(parent: int) -> None:
    if os.getppid() != parent:
        os._exit(1)

"""Several ranks, as torchrun starts them: which one this is, what they share, and the group they form."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from resnetlab.core.errors import ConfigError, LostRankError, first_line

if TYPE_CHECKING:
    from resnetlab.data.config import Check
    from resnetlab.data.dataset import ImageData
    from resnetlab.data.sources import Progress

READING, SILENCE = b"reading", 60.0
"""What the leading rank tells the others while it reads, and after how many seconds again."""
PATIENCE = timedelta(minutes=30)
"""How long a rank waits for the others, who may still be reading their data."""
LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "pair closure")
"""Words by which gloo says that another rank has closed its connection, or is silent for too long."""


@dataclass(frozen=True)
class World:
    """This process among ``size``: the one with ``rank`` 0 leads, and it alone writes."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0


def world() -> World:
    """The group that this process is in; alone where there is none."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def started_by_torchrun() -> bool:
    """Whether torchrun started this process with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarted_by_torchrun() -> bool:
    """Whether torchrun has started this process again (``--max-restarts``) after one of its ranks was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def process_group(device: str) -> Iterator[World]:
    """Join the ranks that torchrun started, over nccl on cuda and gloo else, and leave them at the end.

    Without torchrun there is nothing to join. Each rank takes the cuda device of its local rank. Raises
    ``LostRankError`` where another rank ends before its time, or does not answer for ``PATIENCE``.
    """
    if not started_by_torchrun() or dist.is_initialized():
        yield world()
        return
    cuda = take_device(device)
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        # torchrun keeps one store through all its restarts, with the addresses of ranks that are gone (torch issue
        # 135712). Several machines count their restarts apart, so this is for one alone.
        store = PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield world()
    except RuntimeError as error:
        if not says_lost(error):
            raise
        raise LostRankError(
            f"another rank was lost or cannot be reached ({first_line(error)}); start all ranks again with --resume "
            "auto, and the run resumes from its last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()


def says_lost(error: RuntimeError) -> bool:
    """Whether the network says by the error that another rank is gone; gloo has words for it and no class."""
    return isinstance(error, dist.DistError) or any(word in str(error) for word in LOST)


def take_device(device: str) -> bool:
    """Select the cuda device of the local rank (modulo the number of devices); whether there is one."""
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    return cuda


def check_share(batch_size: int, ranks: int, micro_batches: int, *, even: bool = False) -> None:
    """Raise ``ConfigError`` unless the ranks can share a batch equally, at least two images to a micro-batch.

    ``even`` asks for an even number of them: mixup takes neighbours, which must not be in two shares.
    """
    parts = ranks * micro_batches
    if batch_size % parts or batch_size // parts < 2 or (even and batch_size // parts % 2):
        factor = 2 * parts if even else parts
        raise ConfigError(
            f"batch_size={batch_size} cannot be shared by {ranks} ranks and {micro_batches} micro-batches; "
            f"give a multiple of {factor}, at least {2 * parts}"
        )


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of the tensor over all ranks, in place."""
    if world().size > 1:
        dist.all_reduce(values)
    return values


def share_bytes(data: bytes | None) -> bytes | None:
    """What the leading rank has, on every rank; None where it has nothing. Nothing is pickled on the way."""
    if world().size == 1:
        return data
    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    length = torch.tensor([-1 if data is None else len(data)], device=device)
    dist.broadcast(length, src=0)
    size = int(length.item())
    if size < 0:
        return None
    if world().leads and data is not None:
        buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)
    else:
        buffer = torch.empty(size, dtype=torch.uint8, device=device)
    if size:
        dist.broadcast(buffer, src=0)
    return buffer.cpu().numpy().tobytes()


def leading_first(
    read: "Callable[[Check, Progress | None], ImageData]", check: "Check", on_progress: "Progress | None"
) -> "ImageData":
    """What ``read`` gives for ``check``: the leading rank reads first, and the others as it did, however long it takes.

    Where it fails, they read too, and fail alike.
    """
    if world().size == 1:
        return read(check, on_progress)
    if not world().leads:
        # Less than PATIENCE lies between two words of the leading rank.
        while (said := share_bytes(None)) == READING:
            pass
        return read(cast("Check", said.decode()) if said else check, on_progress)
    last = monotonic()
    told: bytes | None = None

    def on_each(done: int, total: int) -> None:
        nonlocal last
        if monotonic() - last > SILENCE:
            last = monotonic()
            share_bytes(READING)
        if on_progress:
            on_progress(done, total)

    try:
        data = read(check, on_each)
        told = data.check.encode()
    finally:
        share_bytes(told)
    return data


def share_buffers(net: nn.Module) -> None:
    """Give every rank the leading one's buffers: without sync_bn each has running statistics of its own batches."""
    if world().size > 1:
        for buffer in net.buffers():
            dist.broadcast(buffer, src=0)

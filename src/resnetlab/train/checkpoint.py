"""Checkpoints: network, optimizer and history, from which a run resumes bit for bit.

A checkpoint is a folder: ``model.safetensors`` (parameters and buffers of the network that is kept),
``training.safetensors`` (the other tensors that training needs), ``state.json`` (the epochs so far, the step of the one
under way, and the trace of the gradients) and a manifest with their checksums. No random state is kept, because no draw
depends on the one before it (``resnetlab.core.randomness``). Nothing is pickled.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from resnetlab.core.errors import CheckpointError
from resnetlab.core.files import read_folder
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.gradients import GradientMoment
from resnetlab.records.run import EpochRecord

MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
FILES = (MODEL, TRAINING, STATE)
DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls the types of numbers, in the order in which it lays them out: no tensor is misaligned."""
PIECE = 1 << 20
"""Bytes from which on a tensor is written by itself; smaller ones are gathered."""


@dataclass(kw_only=True)
class RunSettings:
    """What decides a run: ``values``, as plain data, and in words the ``changes`` since it began.

    ``changes`` is filled as the run resumes from a checkpoint of other values.
    """

    values: dict[str, Any] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint: tensors by name, the epochs that led to them, and where the run stood.

    ``model`` is the network that is kept. ``training`` has ``optimizer/<parameter>/<slot>``, with a moving average the
    trained network as ``raw/<name>``, and in mid-epoch ``epoch/losses`` and ``epoch/wrong``, one number a step.
    ``moments`` are those of the trace; ``environment`` holds the versions and the hardware it was made on, ``settings``
    the recipe and the data, without which a resume could not tell that they are no longer the same.
    """

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    history: list[EpochRecord]
    moments: list[GradientMoment] = field(default_factory=list)
    step: int = 0
    warm_since: int | None = None
    seconds: float = 0.0
    scaler: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    settings: RunSettings = field(default_factory=RunSettings)
    origin: Path = Path()


def snapshot(checkpoint: Checkpoint, spare: Checkpoint | None = None) -> Checkpoint:
    """The checkpoint with copies of its tensors in the host's memory, which training does not change as it goes on.

    They take the memory of ``spare``, which nobody needs any more: new pages would cost more than the copies.
    """
    with torch.no_grad():
        held = replace(
            checkpoint,
            model=_copied(checkpoint.model, spare.model if spare else {}),
            training=_copied(checkpoint.training, spare.training if spare else {}),
        )
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().synchronize()
    return held


def _copied(tensors: dict[str, Tensor], spare: dict[str, Tensor]) -> dict[str, Tensor]:
    copies = {}
    for name, value in tensors.items():
        copy = spare.get(name)
        if copy is None or (copy.dtype, copy.shape, copy.stride()) != (value.dtype, value.shape, value.stride()):
            copy = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        copies[name] = copy.copy_(value, non_blocking=True)
    return copies


def pack(checkpoint: Checkpoint) -> dict[str, bytes | Iterator[bytes | memoryview]]:
    """The checkpoint as the files of a folder, those of tensors in pieces."""
    state = {
        "history": as_plain(checkpoint.history),
        "moments": as_plain(checkpoint.moments),
        "step": checkpoint.step,
        "warm_since": checkpoint.warm_since,
        "seconds": checkpoint.seconds,
        "scaler": checkpoint.scaler,
        "environment": checkpoint.environment,
        "settings": as_plain(checkpoint.settings),
    }
    return {
        MODEL: safetensors_pieces(checkpoint.model, {"format": "pt"}),
        TRAINING: safetensors_pieces(checkpoint.training),
        STATE: json.dumps(state, allow_nan=False).encode(),
    }


def unpack(files: dict[str, bytes], origin: Path) -> Checkpoint:
    """The checkpoint that ``pack`` made. Raises ``CheckpointError`` for files that are no checkpoint."""
    try:
        state = json.loads(files[STATE])
        checkpoint = Checkpoint(
            model=load(files[MODEL]),
            # A run that has ended may keep none.
            training=load(files[TRAINING]) if files.get(TRAINING) else {},
            history=from_plain(list[EpochRecord], state["history"], str(origin / STATE)),
            # Checkpoints that were written before have none.
            moments=from_plain(list[GradientMoment], state.get("moments", []), str(origin / STATE)),
            step=_whole(state["step"]),
            warm_since=None if state["warm_since"] is None else _whole(state["warm_since"]),
            seconds=float(state["seconds"]),
            scaler=dict(state["scaler"]),
            environment=dict(state["environment"]),
            settings=_settings(state, origin),
            origin=origin,
        )
    except (KeyError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{origin} is not a checkpoint of resnetlab ({error!r})") from error
    if not isfinite(checkpoint.seconds):
        raise CheckpointError(f"{origin} is not a checkpoint of resnetlab (it took {checkpoint.seconds} seconds)")
    return checkpoint


def read_checkpoint(folder: Path, *, fall_back: bool = False) -> Checkpoint:
    """The newest version of a checkpoint, or with ``fall_back`` the newest that is whole.

    Raises ``CheckpointError`` where there is none.
    """
    origin, files = read_folder(folder, fall_back=fall_back)
    return unpack(files, origin)


def read_settings(folder: Path) -> RunSettings:
    """The settings in the newest whole version of a checkpoint, without its tensors; empty where it holds none.

    Raises ``CheckpointError`` where there is none.
    """
    origin, files = read_folder(folder, fall_back=True, only=[STATE])
    try:
        return _settings(json.loads(files[STATE]), origin)
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{origin} is not a checkpoint of resnetlab ({error!r})") from error


def _settings(state: dict[str, Any], origin: Path) -> RunSettings:
    # Checkpoints that were written before have none.
    return from_plain(RunSettings, state.get("settings", {}), str(origin / STATE))


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of steps")
    return value


def safetensors_pieces(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> Iterator[bytes | memoryview]:
    """The bytes that ``safetensors.torch.save`` gives, in pieces; a contiguous tensor on the CPU is not copied."""
    order, gathered = list(DTYPES), bytearray()
    named = sorted(tensors.items(), key=lambda item: (order.index(item[1].dtype), item[0].encode()))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in named:
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    gathered += len(text).to_bytes(8, "little") + text
    for _, tensor in named:
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if len(flat) < PIECE:
            gathered += flat.data
        if len(gathered) >= PIECE or (len(flat) >= PIECE and gathered):
            yield bytes(gathered)
            gathered.clear()
        if len(flat) >= PIECE:
            yield flat.data
    if gathered:
        yield bytes(gathered)

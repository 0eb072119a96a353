"""Checkpoints: network, optimizer and history, from which a run resumes bit for bit.

A checkpoint is a folder: ``model.safetensors`` (parameters and buffers of the network that is kept),
``training.safetensors`` (the other tensors that training needs), ``state.json`` (the epochs so far, the step of the one
under way, and the trace of the gradients) and a manifest with their checksums. No random state is kept, because no draw
depends on the one before it (``resnetlab.core.randomness``). Nothing is pickled.
"""

import json
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from resnetlab.core.errors import CheckpointError
from resnetlab.core.files import read_folder
from resnetlab.core.serialize import as_plain, from_plain
from resnetlab.records.gradients import GradientMoment
from resnetlab.records.run import EpochRecord

MODEL, TRAINING, STATE = "model.safetensors", "training.safetensors", "state.json"
FILES = (MODEL, TRAINING, STATE)


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


def pack(checkpoint: Checkpoint) -> dict[str, bytes]:
    """The checkpoint as the files of a folder."""
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
        MODEL: save(_for_file(checkpoint.model), metadata={"format": "pt"}),
        TRAINING: save(_for_file(checkpoint.training)),
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


def _for_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

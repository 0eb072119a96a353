"""Checkpoints: network, optimizer and history, such that a resumed run goes on bit for bit.

A checkpoint is a folder: ``model.safetensors`` (parameters and buffers), ``optimizer.safetensors`` (its state, named
by parameter), ``state.json`` (the epochs so far) and a manifest with their sums. No random state is kept, because no
draw depends on the one before it (``resnetlab.randomness``). Nothing is pickled.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from resnetlab.errors import CheckpointError
from resnetlab.files import read_folder, replace_folder
from resnetlab.records import EpochRecord, as_plain, from_plain

MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint folder holds: tensors by name, and the epochs that led to them."""

    origin: Path
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    history: list[EpochRecord]


def write_checkpoint(
    folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, history: list[EpochRecord]
) -> None:
    """Replace ``folder`` by a checkpoint of this moment; the one before stays beside it as ``<folder>.previous``."""
    contents = {
        MODEL: save(_for_file(net.state_dict())),
        OPTIMIZER: save(_for_file(_named_state(net, optimizer))),
        STATE: json.dumps({"history": as_plain(history)}, allow_nan=False).encode(),
    }
    replace_folder(folder, contents)


def read_checkpoint(folder: Path, *, fall_back: bool = False) -> Checkpoint:
    """The newest version of a checkpoint, or with ``fall_back`` the newest that is whole.

    Raises ``CheckpointError`` where there is none.
    """
    origin, files = read_folder(folder, fall_back=fall_back)
    try:
        return Checkpoint(
            origin=origin,
            model=load(files[MODEL]),
            optimizer=load(files[OPTIMIZER]),
            history=from_plain(list[EpochRecord], json.loads(files[STATE])["history"], str(folder / STATE)),
        )
    except (KeyError, ValueError, TypeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is not a checkpoint of resnetlab ({error!r})") from error


def restore_model(net: nn.Module, checkpoint: Checkpoint) -> None:
    """Load parameters and buffers. Raises ``CheckpointError`` where the network is another one."""
    try:
        net.load_state_dict(checkpoint.model)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.origin} holds another network: {error}") from error


def restore_optimizer(net: nn.Module, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    """Load the optimizer's state of every parameter, in the parameter's own memory format."""
    parameters = dict(net.named_parameters())
    for key, value in checkpoint.optimizer.items():
        name, _, slot = key.rpartition("/")
        if name not in parameters:
            raise CheckpointError(f"{checkpoint.origin} holds the optimizer state of {name}, which this network lacks")
        parameter = parameters[name]
        # A step counter is one number on the CPU; all else has the parameter's shape.
        like = parameter if value.shape == parameter.shape else value
        optimizer.state[parameter][slot] = torch.empty_like(like, requires_grad=False).copy_(value)


def _named_state(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{name}/{slot}": value
        for name, parameter in net.named_parameters()
        for slot, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def _for_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

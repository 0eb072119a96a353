"""Read named tensors from untrusted files: names and shapes first, values later, and never run code.

``.safetensors`` holds no code. A ``.pth`` is a pickle, which can name any function to call: it is read by torch's
restricted unpickler alone (``weights_only=True``), which knows tensors and plain containers and calls nothing else.
"""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from resnetlab.core.errors import CheckpointError, first_line
from resnetlab.core.files import folder_exists, read_folder

SAFE = ".safetensors"
PICKLED = (".pth", ".pt", ".th")
MODEL_FILE = "model.safetensors"
_WRAPPERS = ("state_dict", "model")


@dataclass(frozen=True)
class Entry:
    """A tensor that may still be on disk: its shape, whether it is floating-point, and how to read it."""

    shape: tuple[int, ...]
    floating: bool
    read: Callable[[], Tensor]


def open_state(source: str | Path | Mapping[str, Tensor]) -> tuple[str, dict[str, Entry]]:
    """Where the tensors come from, in words, and the tensors by name.

    ``source`` is a file, a checkpoint folder (of a run: its ``last``), a folder with ``model.safetensors``, or a state
    dict. A ``module.`` before every name, which DataParallel leaves behind, is taken off.

    Raises ``CheckpointError`` for what is missing, damaged, no state dict, or wants to run code.
    """
    if isinstance(source, Mapping):
        origin, entries = "the state dict", _from_mapping("the state dict", source)
    else:
        origin, entries = str(source), _from_path(Path(source))
    if not entries:
        raise CheckpointError(f"{origin} holds no tensors; give the state dict of a network")
    if all(name.startswith("module.") for name in entries):
        entries = {name.removeprefix("module."): entry for name, entry in entries.items()}
    return origin, entries


def _from_path(path: Path) -> dict[str, Entry]:
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise CheckpointError(
            f"{path} does not exist; give a {SAFE} or {', '.join(PICKLED)} file or a checkpoint folder"
        )
    if path.suffix == SAFE:
        return _from_safetensors(path)
    if path.suffix in PICKLED:
        return _from_mapping(str(path), _unwrap(_unpickle(path)))
    raise CheckpointError(
        f"{path}: files that end in {path.suffix!r} are not read; allowed are {SAFE}, {', '.join(PICKLED)}"
    )


def _from_folder(folder: Path) -> dict[str, Entry]:
    for candidate in (folder, folder / "last"):
        if folder_exists(candidate):
            return _from_bytes(candidate)
    if (folder / MODEL_FILE).is_file():
        return _from_safetensors(folder / MODEL_FILE)
    raise CheckpointError(
        f"{folder} holds no checkpoint of resnetlab and no {MODEL_FILE}; give a run, its last, or a file"
    )


def _from_bytes(folder: Path) -> dict[str, Entry]:
    _, files = read_folder(folder)
    try:
        return _from_mapping(str(folder), load(files[MODEL_FILE]))
    except (KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is not a checkpoint of resnetlab ({error!r})") from error


def _from_safetensors(path: Path) -> dict[str, Entry]:
    # The file is mapped, not read: its header is checked against its size before any tensor takes memory.
    try:
        file: Any = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); get it again") from error
    return {
        name: Entry(tuple(part.get_shape()), "F" in part.get_dtype(), partial(file.get_tensor, name))
        for name, part in slices.items()
    }


def _unpickle(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _refuse_compressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        # A hostile pickle can raise anything on its way; every fault of the file is the one answer below.
        raise CheckpointError(
            f"{path} was refused: it is damaged, or holds more than tensors ({first_line(error)}). Nothing in "
            "it was run. Save the state dict alone: torch.save(net.state_dict(), …), or as safetensors"
        ) from error


def _refuse_compressed(path: Path) -> None:
    """torch never compresses; a small file that unpacks to fill the memory does."""
    try:
        entries = zipfile.ZipFile(path).infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); get it again") from error
    if any(entry.file_size > entry.compress_size for entry in entries):
        raise CheckpointError(f"{path} is compressed, which torch.save never does; it is not read")


def _unwrap(value: Any) -> Any:
    """The state dict inside what training scripts save around it."""
    for key in _WRAPPERS:
        if isinstance(value, Mapping) and isinstance(value.get(key), Mapping):
            return value[key]
    return value


def _from_mapping(origin: str, value: Any) -> dict[str, Entry]:
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{origin} holds a {type(value).__name__}, not a state dict; save net.state_dict()")
    for name, tensor in value.items():
        plain = isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not plain:
            raise CheckpointError(
                f"{origin}: {name!r} is a {type(tensor).__name__}, not a dense tensor by name; give a state dict"
            )
    return {
        name: Entry(tuple(tensor.shape), tensor.is_floating_point(), partial(_itself, tensor))
        for name, tensor in value.items()
    }


def _itself(tensor: Tensor) -> Tensor:
    return tensor

"""Read named tensors from untrusted files: names and shapes first, values later, and never run code.

What a file is, its content says, not its name. ``safetensors`` and arrays of numpy hold no code. A ``.pth`` is a
pickle, which can name any function to call: it is read by torch's restricted unpickler alone (``weights_only=True``),
which knows tensors, plain containers and the options of argparse, and calls nothing else.
"""

import re
import zipfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from resnetlab.core.errors import CheckpointError, DataError, first_line, load_extra, printable
from resnetlab.core.files import folder_exists, read_folder, read_json

MODEL_FILE = "model.safetensors"
TRAINING_FILE, RAW = "training.safetensors", "raw/"
CONFIG_FILE = "config.json"
_HEADER = 2**24
"""Bytes in which the names of a checkpoint of ours stand."""
_IN_FOLDERS = (MODEL_FILE, "pytorch_model.bin")
_ALLOWED = "safetensors, torch.save (.pth, .pt, .ckpt, .bin …), arrays (.npz), Keras's .h5, or a checkpoint folder"
_HDF5 = b"\x89HDF\r\n\x1a\n"
# What training scripts save beside the weights: options, folders, and the best accuracy as a number of numpy. None of
# these calls anything; numpy's function of that name makes a number of bytes.
_BESIDE_TENSORS: list[Any] = [
    *(Namespace, PosixPath, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType, np.dtypes.Int64DType),
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
_SMALL, _MOST_RATIO = 64 * 2**20, 50
_COLOURS = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Entry:
    """A tensor that may still be on disk: its shape, whether it is floating-point, and how to read it."""

    shape: tuple[int, ...]
    floating: bool
    read: Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What ``source`` holds: nested mappings of entries and other values, and the ``config.json`` beside it.

    ``kept`` is the key of the network that is meant where nothing is said, of which the source itself decided.
    """

    origin: str
    content: Any
    kept: str = ""
    beside: Mapping[str, Any] = field(default_factory=dict)


def open_source(source: str | Path | Mapping[str, Tensor]) -> Opened:
    """Where the tensors come from, in words, and what lies there; tensors are ``Entry``, all else is as it was.

    ``source`` is a file, a checkpoint folder (of a run: its ``last``), a folder with ``model.safetensors``, or a state
    dict.

    Raises ``CheckpointError`` for what is missing, damaged, or wants to run code.
    """
    if not isinstance(source, str | Path):
        return Opened(origin="the state dict", content=source)
    path, origin = Path(source), printable(source)
    if path.is_dir():
        return _open_folder(path, origin)
    if not path.is_file():
        raise CheckpointError(f"{origin} does not exist; give {_ALLOWED}")
    return Opened(origin=origin, content=_open_file(path, origin), beside=_read_config(path.parent))


def as_entry(value: Any) -> Entry | None:
    """The entry of a dense tensor; None for whatever else there is."""
    if isinstance(value, Tensor) and value.layout == torch.strided:
        return Entry(tuple(value.shape), value.is_floating_point(), partial(_itself, value))
    return value if isinstance(value, Entry) else None


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def _open_folder(folder: Path, origin: str) -> Opened:
    for candidate in (folder, folder / "last"):
        if folder_exists(candidate):
            return _from_run(candidate, origin)
    for name in _IN_FOLDERS:
        if (folder / name).is_file():
            content = _open_file(folder / name, printable(folder / name))
            return Opened(origin=origin, content=content, beside=_read_config(folder))
    raise CheckpointError(
        f"{origin} holds no checkpoint of resnetlab and no {' or '.join(_IN_FOLDERS)}; give a run, its last, or a file"
    )


def _read_config(folder: Path) -> Mapping[str, Any]:
    if not (folder / CONFIG_FILE).is_file():
        return {}
    try:
        found = read_json(folder / CONFIG_FILE)
    except DataError as error:
        raise CheckpointError(f"{error}; it stands beside the weights and says what they are of") from error
    return found if isinstance(found, dict) else {}


def _open_file(path: Path, origin: str) -> Any:
    with path.open("rb") as stream:
        head = stream.read(64)
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _from_safetensors(path, origin)
    if head.startswith(_HDF5):
        return _from_hdf5(path, origin)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{origin} is a pointer of Git LFS, not the weights: git lfs pull gets them")
    if (entries := _zip_entries(path, origin)) is not None:
        return _from_zip(path, origin, entries)
    # A pickle begins with its protocol, the oldest with an opcode that is no letter of a text.
    if not head or head[:1] in (b"<", b"{", b"#") or path.suffix in (".md", ".txt", ".json", ".yaml", ".html"):
        raise CheckpointError(f"{origin} is {'empty' if not head else 'a text, not weights'}; give {_ALLOWED}")
    return _unpickle(path, origin)


def _zip_entries(path: Path, origin: str) -> list[zipfile.ZipInfo] | None:
    """What a zip holds; None for a file that is none."""
    try:
        return zipfile.ZipFile(path).infolist() if zipfile.is_zipfile(path) else None
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"{origin} is damaged ({first_line(error)}); get it again") from error


def _from_zip(path: Path, origin: str, entries: list[zipfile.ZipInfo]) -> Any:
    if entries and all(entry.filename.endswith(".npy") for entry in entries):
        return _from_arrays(path, origin)
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        raise CheckpointError(
            f"{origin} is a program of TorchScript, which is not run; save its weights alone: "
            "torch.save(torch.jit.load(FILE).state_dict(), …)"
        )
    # torch never compresses; a small file that unpacks to fill the memory does.
    if any(entry.file_size > entry.compress_size for entry in entries):
        raise CheckpointError(f"{origin} is compressed, which torch.save never does; it is not read")
    return _unpickle(path, origin, zipped=True)


def _from_run(folder: Path, origin: str) -> Opened:
    """A checkpoint of a run: the network that it keeps, which may be an average, and beside it the raw weights."""
    _, files = read_folder(folder)
    try:
        model = load(files[MODEL_FILE])
        training = load(files[TRAINING_FILE]) if b'"raw/' in files.get(TRAINING_FILE, b"")[:_HEADER] else {}
        raw = {name.removeprefix(RAW): value for name, value in training.items() if name.startswith(RAW)}
        return Opened(origin=origin, content={"ema": model, "raw": raw} if raw else model, kept="ema" if raw else "")
    except (KeyError, SafetensorError) as error:
        raise CheckpointError(f"{origin} is not a checkpoint of resnetlab ({error!r})") from error


def _from_safetensors(path: Path, origin: str) -> dict[str, Entry]:
    # The file is mapped, not read: its header is checked against its size before any tensor takes memory.
    try:
        file: Any = safe_open(path, framework="pt")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{origin} is damaged or no safetensors file ({printable(first_line(error))}); get it again"
        ) from error
    return {
        name: Entry(tuple(part.get_shape()), "F" in part.get_dtype(), partial(file.get_tensor, name))
        for name, part in slices.items()
    }


def _unpickle(path: Path, origin: str, *, zipped: bool = False) -> Any:
    try:
        with torch.serialization.safe_globals(_BESIDE_TENSORS):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        # A hostile pickle can raise anything on its way; every fault of the file is the one answer below.
        raise CheckpointError(
            f"{origin} was refused: {_reason(error)}. Nothing in it was run. If you trust it: "
            "torch.save(torch.load(FILE, weights_only=False)['state_dict'], …), or .state_dict() of a whole network"
        ) from error


def _reason(error: Exception) -> str:
    """Why torch refused the file, in words of ours: its own message has several lines of advice in colours."""
    text = _COLOURS.sub("", str(error))
    named = re.search(r"nsupported (?:global: )?(?:GLOBAL|class) `?(\w[\w.]*\w)", text)
    if named:
        return f"beside tensors it holds a {printable(named[1])}, which is code to be called"
    return "it is damaged, or no file of weights"


def _from_arrays(path: Path, origin: str) -> dict[str, Entry]:
    """The arrays of an ``.npz``, by name; none is read before its shape is known to fit."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _refuse_bomb(origin, sum(m.file_size for m in members), sum(m.compress_size for m in members))
        for entry in members:
            member = entry.filename
            try:
                with archive.open(entry) as stream:
                    version = np.lib.format.read_magic(stream)
                    read_header = np.lib.format.read_array_header_1_0
                    if version != (1, 0):
                        read_header = np.lib.format.read_array_header_2_0
                    shape, _, dtype = read_header(stream)
                if prod(shape) * dtype.itemsize > entry.file_size:
                    raise ValueError(f"an array of shape {shape} is longer")
            except Exception as error:  # a damaged member fails in many ways
                raise CheckpointError(f"{origin}: {member!r} is damaged ({first_line(error)}); get it again") from error
            if dtype.kind in "fiub":
                name = member.removesuffix(".npy")
                found[name] = Entry(tuple(shape), dtype.kind == "f", partial(_read_array, path, name, origin))
    return found


def _refuse_bomb(origin: str, unpacked: int, packed: int) -> None:
    """Trained weights hardly compress; a small file that unpacks to fill the memory is none of them."""
    if unpacked > max(_SMALL, _MOST_RATIO * packed):
        raise CheckpointError(
            f"{origin} unpacks from {packed:,} to {unpacked:,} bytes, {unpacked // max(1, packed):,} times as many, "
            f"where at most {_MOST_RATIO} are read; save the weights without compression"
        )


def _read_array(path: Path, name: str, origin: str) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return torch.from_numpy(np.ascontiguousarray(arrays[name]))
    except Exception as error:
        raise CheckpointError(f"{origin}: {name!r} is damaged ({first_line(error)}); get it again") from error


def _from_hdf5(path: Path, origin: str) -> dict[str, Entry]:
    """The data sets of an HDF5 file by their paths; links out of the file are not followed."""
    h5py = load_extra("h5py", f"{origin}, a file of HDF5,", "keras", ", or save its arrays as .npz")
    found = {}
    sizes = [0, 0]

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiub" and not (item.external or item.is_virtual):
            sizes[0] += item.nbytes
            sizes[1] += item.id.get_storage_size()
            found[name] = Entry(tuple(item.shape), item.dtype.kind == "f", partial(_read_dataset, path, name, origin))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(note)
    except Exception as error:
        raise CheckpointError(f"{origin} is damaged ({first_line(error)}); get it again") from error
    _refuse_bomb(origin, *sizes)
    return found


def _read_dataset(path: Path, name: str, origin: str) -> Tensor:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return torch.from_numpy(np.ascontiguousarray(file[name][()]))
    except Exception as error:
        raise CheckpointError(f"{origin}: {name!r} is damaged ({first_line(error)}); get it again") from error

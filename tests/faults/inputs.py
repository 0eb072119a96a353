"""Recipes, arrays, weights and records as a stranger might send them: damaged, swollen, or with values out of place."""

import gzip
import io
import json
import os
import pickle
import resource
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load, save

from resnetlab.core.errors import ResNetLabError
from resnetlab.core.randomness import generator
from resnetlab.core.serialize import as_plain, read_record
from resnetlab.data.sources import load_data
from resnetlab.models.weights import load_weights
from resnetlab.models.zoo import create_model
from resnetlab.records.run import RunRecord
from resnetlab.train.recipe import Recipe, load_recipe
from tests.faults import processes
from tests.faults.images import damaged
from tests.faults.processes import Pool
from tests.made import run_record

MOST_BYTES, MOST_CPU = 1 << 30, 60.0
"""What any input below 10 MB may take: memory of the whole process in bytes, and seconds of its processor."""
SHARE = 100
"""Inputs of one child."""
SWOLLEN = 50
"""One input of so many is small on the disk and large when it is opened."""
VALUES = (
    *("~", "-1", "0", "010", "1e400", "-.inf", ".nan", "0x" + "f" * 4000, "9" * 4000, "'\\e[31m'", '"\\0"', "yes"),
    *("2001-01-01", "[]", "{}", "[[[[]]]]", "!!python/object:os.system {}", "&a [*a]", "<<", "? x", "|", "\t", "犬"),
)
Given = tuple[str, bytes]
Read = Callable[[Path], object]


def inputs(count: int, seed: int, pool: Pool | None = None) -> dict[str, Any]:
    """``count`` inputs, of each kind in turn: each is read or refused with an error of ours, within ``MOST_BYTES`` and
    ``MOST_CPU``. Control: the same inputs are given to the libraries that read them.
    """
    pool = pool or Pool()
    usual = [number for number in range(count) if not _is_swollen(number)]
    shares_of = [usual[first : first + SHARE] for first in range(0, len(usual), SHARE)]
    shares_of += [[number] for number in range(count) if _is_swollen(number)]
    jobs = [(_share, numbers, seed) for numbers in shares_of]
    shares = pool.map(processes.call, jobs)
    counts: dict[str, Any] = {"n": count, "held": count}
    for key in ("read", "refused", *KINDS):
        counts[key] = sum(share[key] for share in shares)
    counts["failures"] = [failure for share in shares for failure in share["failures"]]
    counts["held"] -= len(counts["failures"])
    counts["most_cpu_seconds"] = round(max(share["cpu"] for share in shares), 1)
    counts["most_mebibytes"] = max(share["bytes"] for share in shares) >> 20
    return counts | {name: sum(share[name] for share in shares) for name in ("control_n", "control_lost")}


def _is_swollen(number: int) -> bool:
    return number // len(KINDS) % SWOLLEN == 0


def _share(numbers: list[int], seed: int) -> dict[str, Any]:
    # Decoders tell of damage on their own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    found: dict[str, Any] = dict.fromkeys(("read", "refused", *KINDS, "control_n", "control_lost"), 0)
    found |= {"failures": [], "cpu": 0.0, "bytes": 0}
    with tempfile.TemporaryDirectory() as name:
        for number in numbers:
            kind = list(KINDS)[number % len(KINDS)]
            make, read, library = KINDS[kind]
            folder = Path(name) / str(number)
            folder.mkdir()
            file, content = make(generator(seed, "inputs", number), _is_swollen(number))
            path = folder / file
            path.write_bytes(content)
            assert len(content) < 10_000_000
            found[kind] += 1
            outcome, cpu = _outcome(read, path)
            found["cpu"] = max(found["cpu"], cpu)
            found["bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if outcome in ("read", "refused"):
                found[outcome] += 1
            if outcome not in ("read", "refused") or cpu > MOST_CPU or found["bytes"] > MOST_BYTES:
                found["failures"].append(f"{kind} {number}: {outcome}, {cpu:.0f} s, {found['bytes'] >> 20} MiB")
            if not _is_swollen(number):
                found["control_n"] += 1
                found["control_lost"] += _outcome(library, path)[0] not in ("read", "refused")
    return found


def _outcome(read: Read, path: Path) -> tuple[str, float]:
    """``read``, ``refused`` or the error that is none of ours, and seconds of the processor."""
    started = time.process_time()
    try:
        read(path)
        outcome = "read"
    except ResNetLabError:
        outcome = "refused"
    except Exception as error:
        outcome = repr(error)[:300]
    return outcome, time.process_time() - started


def _recipe(rng: np.random.Generator, swollen: bool) -> Given:
    if swollen:
        text = (
            "seed: &a 1\n" + "\n".join(f"k{n}: {n}" for n in range(20_000)),
            "a: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 60)),
            "model: " + "[" * 50_000,
            "seed: " + "9" * 1_000_000,
            "model: '" + "x" * 9_000_000 + "'",
        )[rng.integers(5)]
        return "recipe.yaml", text.encode()
    whole = yaml.safe_dump(as_plain(Recipe()))
    if rng.integers(2):
        return "recipe.yaml", damaged([whole.encode()], rng)
    lines = whole.splitlines()
    for place in rng.integers(0, len(lines), 2):
        lines[place] = f"{lines[place].partition(':')[0]}: {VALUES[rng.integers(len(VALUES))]}"
    return "recipe.yaml", "\n".join(lines).encode()


def _arrays(rng: np.random.Generator, swollen: bool) -> Given:
    if swollen:
        zeros = io.BytesIO()
        shape = (1_500_000, 28, 28, 1)[: rng.integers(1, 5)]
        with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
            for name in ("x_train", "y_train", "x_test", "y_test"):
                with made.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array_header_1_0(
                        stream, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
                    )
                    for _ in range(400):
                        stream.write(bytes(1_000_000))
        return "given.npz", zeros.getvalue()
    pixels, labels = rng.integers(0, 256, (12, 4, 4), dtype=np.uint8), np.arange(12) % 3
    kinds: tuple[Any, ...] = (np.uint8, np.int64, np.float32, np.float16, np.int8, ">i4", bool, np.complex64, "U3")
    stream = io.BytesIO()
    parts = {"x_train": pixels, "y_train": labels, "x_test": pixels[:3], "y_test": labels[:3]}
    name = list(parts)[rng.integers(4)]
    parts[name] = parts[name].astype(kinds[rng.integers(len(kinds))])
    np.savez(stream, **parts)
    return "given.npz", damaged([stream.getvalue()], rng) if rng.integers(2) else stream.getvalue()


def _idx(rng: np.random.Generator, swollen: bool) -> Given:
    if swollen:
        zeros = io.BytesIO()
        with gzip.open(zeros, "wb", compresslevel=1) as stream:
            stream.write(struct.pack(">BBBBIII", 0, 0, 8, 3, 1_536_000, 28, 28))
            for _ in range(1_000):
                stream.write(bytes(1_000_000))
        return "train-images-idx3-ubyte.gz", zeros.getvalue()
    head = struct.pack(">BBBBIII", 0, 0, 8, 3, 12, 4, 4)
    whole = head + rng.integers(0, 256, 192, dtype=np.uint8).tobytes()
    if rng.integers(2):
        return "train-images-idx3-ubyte.gz", damaged([gzip.compress(whole)], rng)
    return "train-images-idx3-ubyte", damaged([whole], rng)


def _read_idx(path: Path) -> object:
    """With labels and a test beside it that are whole."""
    images = struct.pack(">BBBBIII", 0, 0, 8, 3, 3, 4, 4) + bytes(48)
    (path.parent / "t10k-images-idx3-ubyte").write_bytes(images)
    for prefix, count in (("train", 12), ("t10k", 3)):
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, count) + bytes(n % 3 for n in range(count))
        (path.parent / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return load_data(f"idx:{path.parent}")


def _weights(rng: np.random.Generator, swollen: bool) -> Given:
    if swollen:
        header = json.dumps({"conv1.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}})
        zeros = io.BytesIO()
        with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
            made.writestr("archive/data.pkl", bytes(100_000_000))
        deep = pickle.PROTO + b"\x02" + pickle.EMPTY_LIST * 200_000 + pickle.APPEND * 199_999 + pickle.STOP
        return (
            ("w.safetensors", struct.pack("<Q", len(header)) + header.encode()),
            ("w.safetensors", struct.pack("<Q", 1 << 62) + b"{"),
            ("w.pth", zeros.getvalue()),
            ("w.pth", deep),
        )[rng.integers(4)]
    state = {name: value[:1].clone() if value.dim() else value for name, value in _NET.state_dict().items()}
    state = dict(list(state.items())[:12])
    if rng.integers(2):
        return "w.safetensors", damaged([save(state)], rng)
    stream = io.BytesIO()
    odd: tuple[Any, ...] = (state, {"state_dict": state, "epoch": 1}, [state], 3, {1: state}, {"model": "x", **state})
    torch.save(odd[rng.integers(len(odd))], stream, _use_new_zipfile_serialization=bool(rng.integers(2)))
    return "w.pth", damaged([stream.getvalue()], rng) if rng.integers(3) else stream.getvalue()


def _load(path: Path) -> object:
    return torch.load(path, weights_only=True) if path.suffix == ".pth" else load(path.read_bytes())


def _record(rng: np.random.Generator, swollen: bool) -> Given:
    if swollen:
        return "record.json", (b"[" * 5_000_000, b'{"a":' * 1_000_000, b"9" * 9_000_000)[rng.integers(3)]
    whole = json.dumps(as_plain(run_record(0.5)), indent=1)
    if rng.integers(2):
        return "record.json", damaged([whole.encode()], rng)
    lines = whole.splitlines()
    values = (
        "null",
        "-1",
        "1e999",
        "NaN",
        '"\\u001b[31m"',
        "[]",
        "{}",
        "true",
        "[[[]]]",
        '"x"',
        "99999999999999999999",
    )
    for place in rng.integers(1, len(lines), 2):
        lines[place] = f"{lines[place].partition(':')[0]}: {values[rng.integers(len(values))]},"
    return "record.json", "\n".join(lines).encode()


_NET = create_model("cifar_resnet8")

KINDS: dict[str, tuple[Callable[[np.random.Generator, bool], Given], Read, Read]] = {
    "recipes": (_recipe, load_recipe, lambda path: Recipe(**yaml.safe_load(path.read_text()))),
    "npz": (_arrays, lambda path: load_data(f"npz:{path}"), lambda path: dict(np.load(path, allow_pickle=False))),
    "idx": (_idx, _read_idx, lambda path: np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)),
    "weights": (_weights, lambda path: load_weights(_NET, path), _load),
    "records": (
        _record,
        lambda path: read_record(RunRecord, path),
        lambda path: RunRecord(**json.loads(path.read_text())),
    ),
}
"""Of each kind: how an input is made, how it is read, and the library alone that would read it."""

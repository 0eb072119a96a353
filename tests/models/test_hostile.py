"""Files that want to run code, or lie about what they hold: refused, nothing run, nothing changed."""

import codecs
import contextlib
import functools
import gzip
import io
import json
import logging
import operator
import os
import pathlib
import pickle
import shutil
import sqlite3
import struct
import subprocess
import tarfile
import time
import zipfile

import pytest
import torch
from safetensors.torch import save

from resnetlab.core.errors import CheckpointError
from resnetlab.models.weights import load_weights
from resnetlab.models.zoo import create_model


@pytest.fixture(scope="module")
def net():
    return create_model("cifar_resnet8")


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts

    def __call__(self):
        """Never: what it pickles as is called in its place."""


def payloads(marker: str) -> dict[str, object]:
    """Objects whose unpickling makes the file or folder ``marker``."""
    source = f"open({marker!r}, 'w').close()"
    return {
        "os.system": Call(os.system, f"touch {marker}"),
        "os.popen": Call(os.popen, f"touch {marker}; sleep 0"),
        "os.mkdir": Call(os.mkdir, marker),
        "os.makedirs": Call(os.makedirs, marker),
        "os.symlink": Call(os.symlink, "/dev/null", marker),
        "os.mkfifo": Call(os.mkfifo, marker),
        "os.open": Call(os.open, marker, os.O_CREAT | os.O_WRONLY),
        "subprocess.call": Call(subprocess.call, ["touch", marker]),
        "subprocess.check_output": Call(subprocess.check_output, ["touch", marker]),
        "subprocess.run": Call(subprocess.run, ["touch", marker]),
        "subprocess.getoutput": Call(subprocess.getoutput, f"touch {marker}"),
        "builtins.eval": Call(eval, source),
        "builtins.exec": Call(exec, source),
        "builtins.open": Call(open, marker, "w"),
        "io.FileIO": Call(io.FileIO, marker, "w"),
        "codecs.open": Call(codecs.open, marker, "w"),
        "gzip.open": Call(gzip.open, marker, "w"),
        "zipfile.ZipFile": Call(zipfile.ZipFile, marker, "w"),
        "sqlite3.connect": Call(operator.methodcaller("execute", "create table t (x)"), Call(sqlite3.connect, marker)),
        "logging.FileHandler": Call(logging.FileHandler, marker),
        "shutil.copy": Call(shutil.copy, "/dev/null", marker),
        "Path.touch": Call(pathlib.Path.touch, pathlib.Path(marker)),
        "Path.mkdir": Call(pathlib.Path.mkdir, pathlib.Path(marker)),
        "functools.partial": Call(functools.reduce, Call(functools.partial, os.mkdir), [marker, 0o700]),
        "getattr chain": Call(Call(getattr, Call(__import__, "os"), "mkdir"), marker),
        "import chain": Call(Call(operator.attrgetter("mkdir"), Call(__import__, "os")), marker),
        "map in a list": Call(list, Call(map, os.mkdir, [marker])),
        "torch.save": Call(torch.save, {}, marker),
        "torch.serialization": Call(torch.serialization._open_file, marker, "wb"),
        "tarfile.open": Call(tarfile.open, marker, "w"),
    }


NAMES = sorted(payloads("x"))


def as_zip(payload):
    """A zip of torch.save, the payload as a value of the state dict."""
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(2), "bn1.weight": payload}, stream)
    return stream.getvalue()


def as_legacy(payload):
    """The format before torch 1.6, the payload inside a wrapper beside the weights."""
    stream = io.BytesIO()
    value = {"state_dict": {"conv1.weight": torch.zeros(2)}, "args": [payload]}
    torch.save(value, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def as_pickle(payload):
    """A bare pickle."""
    return pickle.dumps({"conv1.weight": payload}, protocol=2)


def as_attribute(payload):
    """A zip whose payload is hidden in a tensor's attributes."""
    tensor = torch.nn.Parameter(torch.zeros(2))
    tensor.secret = payload
    stream = io.BytesIO()
    torch.save({"state_dict": {"conv1.weight": tensor}}, stream)
    return stream.getvalue()


FORMATS = [as_zip, as_legacy, as_pickle, as_attribute]
EVERY = [(name, form) for name in NAMES for form in FORMATS]


@pytest.mark.parametrize(("name", "form"), EVERY, ids=lambda value: getattr(value, "__name__", value))
def test_pickle_that_wants_to_run_code_is_refused_and_runs_none(tmp_path, net, name, form):
    marker, path = tmp_path / "marker", tmp_path / "net.pth"
    path.write_bytes(form(payloads(str(marker))[name]))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(CheckpointError, match="Nothing in it was run") as caught:
        load_weights(net, path)
    assert caught.value.exit_code == 4
    assert not os.path.lexists(marker)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "form"), EVERY, ids=lambda value: getattr(value, "__name__", value))
def test_control_a_free_unpickler_would_have_run_it(tmp_path, name, form):
    marker, path = tmp_path / "marker", tmp_path / "net.pth"
    path.write_bytes(form(payloads(str(marker))[name]))
    # Some calls give what their container cannot hold, and have run by then.
    with contextlib.suppress(Exception):
        pickle.loads(path.read_bytes()) if form is as_pickle else torch.load(path, weights_only=False)
    for _ in range(100):  # os.popen waits for nobody
        if os.path.lexists(marker):
            return
        time.sleep(0.02)
    pytest.fail("the payload is none")


def test_there_are_thirty_payloads():
    assert len(NAMES) == 30


def good_zip():
    stream = io.BytesIO()
    torch.save(create_model("cifar_resnet8").state_dict(), stream)
    return stream.getvalue()


def good_legacy():
    stream = io.BytesIO()
    torch.save(create_model("cifar_resnet8").state_dict(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def good_safetensors():
    return save(create_model("cifar_resnet8").state_dict())


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("suffix", "make"), [("pth", good_zip), ("th", good_legacy), ("safetensors", good_safetensors)]
)
def test_truncated_file_is_refused(tmp_path, net, suffix, make, fraction):
    whole, path = make(), tmp_path / f"net.{suffix}"
    path.write_bytes(whole)
    load_weights(net, path)  # the control: whole, it loads
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(CheckpointError, match=r"net\."):
        load_weights(net, path)


def safetensors_file(header, data=b"\0" * 16, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor(shape=(4,), offsets=(0, 16), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


LIES = {
    "length beyond the file": safetensors_file({"a": tensor()}, length=2**40),
    "length of all ones": safetensors_file({"a": tensor()}, length=2**64 - 1),
    "length of nothing": safetensors_file({"a": tensor()}, length=0),
    "not JSON": safetensors_file(b"{'a': 1"),
    "a list": safetensors_file(b"[1, 2]"),
    "offsets beyond the file": safetensors_file({"a": tensor(offsets=(0, 1600), shape=(400,))}),
    "offsets backwards": safetensors_file({"a": tensor(offsets=(16, 0))}),
    "offsets overlap": safetensors_file({"a": tensor(), "b": tensor()}),
    "bytes to spare": safetensors_file({"a": tensor()}, data=b"\0" * 32),
    "shape beyond the offsets": safetensors_file({"a": tensor(shape=(5,))}),
    "shape that overflows": safetensors_file({"a": tensor(shape=(2**40, 2**40))}),
    "negative shape": safetensors_file({"a": tensor(shape=(-4,))}),
    "unknown numbers": safetensors_file({"a": tensor(dtype="F33")}),
    "no file at all": b"",
    "a pickle": pickle.dumps({"a": 1}),
    "no tensors": safetensors_file({}, data=b""),
}


@pytest.mark.parametrize("lie", LIES)
def test_lying_safetensors_header_is_refused(tmp_path, net, lie):
    path = tmp_path / "net.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(CheckpointError, match=r"net\.safetensors"):
        load_weights(net, path)


@pytest.mark.parametrize("value", [[1, 2], "text", torch.zeros(3), {"a": {"b": torch.zeros(2)}}, {1: torch.zeros(2)}])
def test_what_is_no_state_dict_is_refused(tmp_path, net, value):
    torch.save(value, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="state dict"):
        load_weights(net, tmp_path / "net.pth")


def test_compressed_zip_is_refused_before_it_unpacks(tmp_path, net):
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(CheckpointError, match="compressed"):
        load_weights(net, path)


def test_deeply_nested_pickle_is_refused(tmp_path, net):
    path = tmp_path / "deep.pth"
    path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(CheckpointError, match="deep"):
        load_weights(net, path)

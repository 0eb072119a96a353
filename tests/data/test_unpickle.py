"""Pickles that want to run code or to fill the memory: refused, nothing run."""

import codecs
import contextlib
import os
import pickle
import struct
import time

import numpy as np
import pytest

from resnetlab.core.errors import DataError
from resnetlab.data.unpickle import unpickle_arrays
from tests.models.test_hostile import NAMES, Call, payloads

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 12)


def python2(values: dict[str, object]) -> bytes:
    """What cPickle of Python 2 writes at protocol 2: texts as SHORT_BINSTRING, arrays by their old module names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    def write(value: object) -> bytes:
        if isinstance(value, bytes | str):
            return text(value.encode() if isinstance(value, str) else value)
        if isinstance(value, int):
            return b"M" + struct.pack("<H", value)
        if isinstance(value, list):
            return b"](" + b"".join(map(write, value)) + b"e"
        kind = (
            b"cnumpy\ndtype\n"
            + text(b"u1")
            + b"K\0K\1\x87R(K\3"
            + text(b"|")
            + b"NNN"
            + b"J\xff\xff\xff\xff" * 2
            + b"K\0tb"
        )
        shape = b"".join(write(length) for length in value.shape)
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R"
        return made + b"(K\1(" + shape + b"t" + kind + b"\x89" + text(value.tobytes()) + b"tb"

    items = b"".join(text(name.encode()) + write(value) for name, value in values.items())
    return b"\x80\x02}(" + items + b"u."


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_pickle_of_arrays_lists_and_texts_is_read_as_pickle_reads_it(protocol):
    values = {b"data": ARRAY, "labels": [1, 2], b"filenames": [b"a", b"b"], "more": ARRAY[:, ::2].copy(order="F")}
    found = unpickle_arrays(pickle.dumps(values, protocol=protocol), "x")
    assert np.array_equal(found["data"], ARRAY)
    assert np.array_equal(found["more"], ARRAY[:, ::2])
    assert (found["labels"], found["filenames"]) == ([1, 2], [b"a", b"b"])


@pytest.mark.filterwarnings("ignore")
def test_pickle_of_python_2_is_read_as_pickle_reads_it():
    content = python2({"data": ARRAY, "labels": [3, 500], "batch_label": b"one of five"})
    reference = pickle.loads(content, encoding="bytes")
    found = unpickle_arrays(content, "x")
    assert np.array_equal(reference[b"data"], ARRAY)
    assert np.array_equal(found["data"], ARRAY)
    assert found["labels"] == reference[b"labels"] == [3, 500]


HIDINGS = {
    "top": lambda payload: payload,
    "value": lambda payload: {b"data": ARRAY, b"labels": [payload]},
    "key": lambda payload: [{"a": payload}, (1, (payload,))],
    "argument": lambda payload: {b"data": Call(codecs.encode, payload, "latin1")},
    "dtype": lambda payload: {b"data": Call(np.dtype, payload)},
    "state": lambda payload: {b"data": Call(np.dtype, "u1", state=payload)},
}


@pytest.mark.parametrize("hiding", HIDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_pickle_that_wants_to_run_code_is_refused_and_runs_none(tmp_path, name, hiding):
    marker = tmp_path / "marker"
    for protocol in (2, 4):
        content = pickle.dumps(HIDINGS[hiding](payloads(str(marker))[name]), protocol=protocol)
        with pytest.raises(DataError, match="Nothing in it was run") as caught:
            unpickle_arrays(content, "batch")
        assert caught.value.exit_code == 3
        assert not os.path.lexists(marker)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hiding", HIDINGS)
@pytest.mark.parametrize("name", NAMES)
def test_control_pickle_would_have_run_it(tmp_path, name, hiding):
    marker = tmp_path / "marker"
    content = pickle.dumps(HIDINGS[hiding](payloads(str(marker))[name]), protocol=2)
    with contextlib.suppress(Exception):
        pickle.loads(content)
    for _ in range(100):  # os.popen waits for nobody
        if os.path.lexists(marker):
            return
        time.sleep(0.02)
    pytest.fail("the payload is none")


def bomb() -> bytes:
    """A tuple of two tuples of two tuples …, 40 deep, as a key: 2⁴⁰ steps to hash."""
    return b"\x80\x02})" + b"q\0h\0\x86" * 40 + b"K\1s."


def lists(depth: int) -> bytes:
    """A list that holds the list before twice, ``depth`` deep: its text has 2^depth parts."""
    return b"]q\0" + b"".join(b"]q%c(h%ch%ce" % (i + 1, i, i) for i in range(depth))


CODEC = b"c_codecs\nencode\n"
GLOBALS = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\nX\2\0\0\0u1\x85R"
LIES = {
    "empty": b"",
    "no pickle": b"\xff\xd8\xff\xe0",
    "a list": pickle.dumps([1], protocol=2),
    "floats": pickle.dumps({"data": ARRAY.astype(float)}, protocol=2),
    "objects": pickle.dumps({"data": np.array([object], dtype=object)}, protocol=2),
    "structured": pickle.dumps({"data": np.zeros(3, dtype="u1,u1")}, protocol=2),
    "memoised far away": b"\x80\x02}r\0\0\0\x04.",
    "bytes of 2⁶²": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "text of 2³¹": b"\x80\x02X" + struct.pack("<I", 2**31 - 1) + b".",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02U\x01aQ.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\nM\xff\xff\x85\x81.",
    "INST": b"(X\x02\0\0\0u1inumpy\ndtype\n.",
    "array of 10⁹×10⁹": b"\x80\x02}U\1a" + GLOBALS + b"J\0\xca\x9a;J\0\xca\x9a;\x86U\1b\x87R" + b"s.",
    "ndarray called": b"\x80\x02}U\1acnumpy\nndarray\nJ\0\xca\x9a;\x85\x85Rs.",
    "shape beyond the values": b"\x80\x02}U\1a" + GLOBALS + b"K\0\x85U\1b\x87R(K\1K\5K\5\x86" + DTYPE + b"\x89U\1xtbs.",
    "shape of texts": b"\x80\x02}U\1a"
    + GLOBALS
    + b"K\0\x85U\1b\x87R(K\1U\1aJ\0\xca\x9a;\x86"
    + DTYPE
    + b"\x89U\1xtbs.",
    "negative shape": b"\x80\x02}U\1a"
    + GLOBALS
    + b"K\0\x85U\1b\x87R(K\1J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"
    + DTYPE
    + b"\x89U\1xtbs.",
    "state of a function": b"\x80\x02}U\1a" + CODEC + b"N}U\4callK\1s\x86bs.",
    "a function as a value": b"\x80\x02}U\1a" + CODEC + b"s.",
    "state of a class": b"\x80\x02}U\1acnumpy\ndtype\n}U\1bK\1sbs.",
    "zlib as encoding": pickle.dumps({"a": Call(codecs.encode, b"x" * 99, "zlib")}, protocol=2),
    "rot13 as encoding": pickle.dumps({"a": Call(codecs.encode, "x", "rot13")}, protocol=2),
    "tuples to hash": bomb(),
    "lists to print": b"\x80\x02}U\1a" + CODEC + lists(100) + b"U\6latin1\x86Rs.",
    "lists as a dtype": b"\x80\x02}U\1acnumpy\ndtype\n" + lists(100) + b"\x85Rs.",
    "deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "numpy.load": b"\x80\x02cnumpy\nload\nX\x01\0\0\0a\x85R.",
    "numpy.core.multiarray.fromfile": b"\x80\x02cnumpy.core.multiarray\nfromfile\nX\x01\0\0\0a\x85R.",
    "dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    "pickle inside": pickle.dumps({"a": Call(pickle.loads, pickle.dumps(1))}, protocol=2),
}


@pytest.mark.parametrize("lie", LIES)
def test_pickle_that_lies_is_refused_quickly_and_takes_no_memory(lie):
    import resource

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DataError, match=r"^batch was refused"):
        unpickle_arrays(LIES[lie], "batch")
    assert time.process_time() - start < 60  # seconds of this process alone; the bomb would take hours
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_control_the_hash_bomb_is_one():
    value = ()
    for _ in range(20):
        value = (value, value)
    start = time.perf_counter()
    hash(value)
    assert (time.perf_counter() - start) * 2**20 > 60  # seconds, for the 40 of bomb()


def test_refusing_changes_nothing_of_the_reader():
    """A BUILD that reached a function of ours would leave its mark for the next file."""
    import resnetlab.data.unpickle as module

    before = {name: dict(vars(value)) for name, value in vars(module).items() if hasattr(value, "__dict__")}
    for content in LIES.values():
        with contextlib.suppress(DataError):
            unpickle_arrays(content, "x")
    after = {name: dict(vars(value)) for name, value in vars(module).items() if hasattr(value, "__dict__")}
    assert before == after


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_truncated_pickle_is_refused(fraction):
    content = pickle.dumps({b"data": ARRAY, b"labels": [1, 2]}, protocol=2)
    with pytest.raises(DataError, match="was refused"):
        unpickle_arrays(content[: int(len(content) * fraction)], "x")


def test_names_that_are_answered_are_four():
    """A new name in the reader needs a new look at what it lets in."""
    from resnetlab.data.unpickle import _NAMES

    assert {name for _, name in _NAMES} == {"_reconstruct", "ndarray", "dtype", "encode"}
    assert all(value.__module__ == "resnetlab.data.unpickle" for value in _NAMES.values())

"""What goes wrong is one message and an exit code, whatever it holds and whoever reads it."""

import ast
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from resnetlab.cli.tables import show
from resnetlab.core.errors import StorageError
from tests.conftest import ROOT

HOSTILE = "\x1b[31mRED\x1b]0;t\x07 new\nline \u202e byte\udcff"
ENDINGS = {
    "memory": (MemoryError(), 5, "out of memory (MemoryError)"),
    "torch's memory": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 5, "out of memory"),
    "oneDNN's memory": (RuntimeError("could not create a primitive"), 5, "out of memory"),
    "threads": (RuntimeError("can't start new thread"), 5, "out of memory"),
    "torch": (RuntimeError("mat1 and mat2\nshapes"), 1, "error: the run failed: mat1 and mat2 shapes\n"),
    "library": (ImportError("libx.so: failed to map segment"), 5, "a library does not load (libx.so"),
    "disk": (OSError(28, "No space left on device", "x"), 5, "error: x: No space left on device"),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_error_of_the_system_is_one_line_and_a_code(run, monkeypatch, name):
    error, code, message = ENDINGS[name]

    def fail(_words):
        raise error

    monkeypatch.setattr("resnetlab.cli.commands.run_verb", fail)
    found, out, errors = run("list")
    assert (found, out, errors.count("\n")) == (code, "", 1)
    assert message in errors


@pytest.mark.parametrize(("error", "told"), [("MemoryError", ""), ("ValueError('of ours')", "ValueError: of ours")])
def test_missing_memory_when_python_ends_is_no_traceback(error, told):
    code = (
        "import atexit\nfrom resnetlab.cli import run\n"
        f"def last(): raise {error}\n"
        "atexit.register(last)\nrun(['--version'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("resnetlab ")
    assert done.stderr.strip().splitlines()[-1:] == ([told] if told else [])


def test_fault_of_ours_keeps_its_traceback(run, monkeypatch):
    def fail(_words):
        raise KeyError("x")

    monkeypatch.setattr("resnetlab.cli.commands.run_verb", fail)
    with pytest.raises(KeyError):
        run("list")


WORDS = [
    ("train", "--data", HOSTILE),
    ("train", "--model", HOSTILE),
    ("train", HOSTILE),
    ("train", "--epochs", HOSTILE),
    ("train", f"--{HOSTILE}", "1"),
    ("train", "--out", HOSTILE, "--resume", "no" + HOSTILE),
    ("train", "--options", HOSTILE, "1"),
    ("diagnose", HOSTILE),
    ("evaluate", HOSTILE),
    ("report", HOSTILE),
    ("data", "inspect", HOSTILE),
    ("weights", "inspect", HOSTILE),
    ("study", "--axis", f"{HOSTILE}=1,2"),
    ("info", HOSTILE),
    ("list", HOSTILE),
    (HOSTILE,),
]


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0] if words[0].isprintable() else "verb")
def test_control_characters_of_a_word_never_reach_the_terminal(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, out, errors = run(*words)
    assert code in (1, 2, 3, 4)
    assert all(line.isprintable() for line in f"{out}{errors}".splitlines())
    assert errors
    assert "\x1b" not in errors.replace("\n", "")


def test_recipe_of_a_stranger_cannot_write_to_the_terminal(run, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text('model: "\\e[31mRED\\n"\n')
    code, _, errors = run("train", path)
    assert (code, errors.count("\n")) == (2, 1)
    assert r"\x1b[31mRED\n" in errors


def test_only_show_prints():
    """Every other place would have to escape on its own."""
    for path in (ROOT / "src").rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], path


class Refusing:
    """A stream that refuses with an error of the system."""

    def __init__(self, place: Path, number: int) -> None:
        self.place, self.number = os.open(place, os.O_WRONLY | os.O_CREAT), number

    def write(self, _text: str) -> None:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None: ...

    def fileno(self) -> int:
        return self.place


@pytest.mark.parametrize(("number", "raises"), [(32, False), (5, False), (28, True)])
def test_printing_where_nobody_reads_goes_on_and_a_full_disk_is_told(tmp_path, monkeypatch, number, raises):
    stream = Refusing(tmp_path / "out", number)
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(StorageError, match="cannot print") if raises else nullcontext():
        show("x")
    os.close(stream.place)


CLOSED = {
    "stdin": ("list cifar_resnet20 <&-", 0, "cifar_resnet20\n"),
    "all": ("list <&- >&- 2>&-", 0, ""),
    "stderr": ("info nosuchnet 2>&-", 2, ""),
    "head": ("info nosuchnet 2>&1 >/dev/null | head -0; exit ${PIPESTATUS[0]}", 2, ""),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_stream_is_no_error_and_the_code_is_that_of_the_work(name):
    words, code, out = CLOSED[name]
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m resnetlab {words}"], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, out, "")

"""Reads the command, does it, and turns what goes wrong into one message and an exit code."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from signal import SIGINT
from typing import NoReturn

from resnetlab import __version__
from resnetlab.cli.tables import show
from resnetlab.cli.tune import begin_tuned
from resnetlab.core.errors import MissingExtraError, ResNetLabError, StoppedError, StorageError, one_line

NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
    "start new thread",
    "could not create a primitive",
    "could not create a memory",
)
"""Words by which torch, oneDNN and Python say that the system gave them no more."""


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program: one command, and then the end of Python, whose own last steps may lack memory too."""
    sys.unraisablehook = tell_unraisable
    if arguments is None:
        begin_tuned(sys.argv[1:])
    raise SystemExit(main(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 ok, 1 the run failed, 2 usage, 3 data, 4 checkpoint, 5 disk, memory or a library,
    130 Ctrl-C, 143 SIGTERM, 129 SIGHUP, 131 SIGQUIT.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_streams()
    try:
        if words == ["--version"]:
            show(f"resnetlab {__version__}")
            return 0
        from resnetlab.cli.commands import run_verb

        run_verb(words)
    except KeyboardInterrupt as error:
        message, code = "interrupted", 128 + (error.args[0] if error.args else SIGINT)
    except Exception as error:
        told = told_as(error)
        if told is None:
            raise
        message, code = told
    else:
        return 0
    # Every rank that torchrun started was stopped: one says so.
    if code < 128 or os.environ.get("RANK", "0") == "0":
        with suppress(StorageError):
            show(message, errors=True)
    return code


def told_as(error: Exception) -> tuple[str, int] | None:
    """The message and the exit code of an error that a user can do something about; None for a fault of ours."""
    if isinstance(error, StoppedError):
        return str(error), error.exit_code
    if isinstance(error, ResNetLabError):
        return f"error: {error}", error.exit_code
    if isinstance(error, MemoryError | RuntimeError) and is_out_of_memory(error):
        return (
            f"error: out of memory ({one_line(error)}); free some, or take less with a smaller --batch-size or "
            "--checkpoint-blocks; a run resumes from its last checkpoint with --resume"
        ), StorageError.exit_code
    if isinstance(error, RuntimeError):
        return f"error: the run failed: {one_line(error)}", ResNetLabError.exit_code
    if isinstance(error, ImportError):
        return (
            f"error: a library does not load ({one_line(error)}); free some memory, or install resnetlab again"
        ), MissingExtraError.exit_code
    if isinstance(error, OSError):
        return f"error: {error.filename or 'the system'}: {error.strerror or error}", StorageError.exit_code
    return None


def tell_unraisable(fault: "sys.UnraisableHookArgs") -> None:
    """Python's answer to an error that nobody can catch; without memory, which is told once, none."""
    if not isinstance(fault.exc_value, MemoryError):
        sys.__unraisablehook__(fault)


def is_out_of_memory(error: Exception) -> bool:
    """Whether the system gave no memory. torch says so in words, or by a class of its own on cuda."""
    return isinstance(error, MemoryError) or any(word in str(error) for word in NO_MEMORY)


def open_streams() -> None:
    """Give each standard stream that was closed (``>&-``) a place, so that no file takes its number; and let a terminal
    without × and ± show ? for them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that was closed.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if name == "stdin" else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")

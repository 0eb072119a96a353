"""Reads the command, does it, and turns what goes wrong into one message and an exit code."""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from signal import SIGINT

from resnetlab import __version__
from resnetlab.core.errors import ResNetLabError, StoppedError, StorageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 ok, 1 the run failed, 2 usage, 3 data, 4 checkpoint, 5 disk, 130 Ctrl-C,
    143 SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal without × and ± shows ? for them.
            stream.reconfigure(errors="replace")
    try:
        if words == ["--version"]:
            print(f"resnetlab {__version__}")
            return 0
        from resnetlab.cli.commands import run_verb

        run_verb(words)
        sys.stdout.flush()
    except StoppedError as error:
        # Every rank that torchrun started was stopped: one says so.
        if os.environ.get("RANK", "0") == "0":
            print(error, file=sys.stderr)
        return error.exit_code
    except ResNetLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt as error:
        print("interrupted", file=sys.stderr)
        # Another signal than Ctrl-C's names itself (``train.signals``).
        return 128 + (error.args[0] if error.args else SIGINT)
    except BrokenPipeError:
        # The reader of our output left (resnetlab list | head): nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"error: {error.filename or 'the system'}: {error.strerror or error}", file=sys.stderr)
        return StorageError.exit_code
    return 0

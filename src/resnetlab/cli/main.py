"""Reads the command, does it, and turns what goes wrong into one message and an exit code."""

import os
import sys
from collections.abc import Sequence

from resnetlab import __version__
from resnetlab.errors import ResNetLabError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 ok, 1 the run failed, 2 usage, 3 data, 4 checkpoint, 5 disk, 130 Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"resnetlab {__version__}")
        return 0
    try:
        from resnetlab.cli.verbs import run_verb

        run_verb(words)
    except ResNetLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; every complete epoch is saved: to go on, give the same command again", file=sys.stderr)
        print("(train: with --resume auto)", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (resnetlab list | head): nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

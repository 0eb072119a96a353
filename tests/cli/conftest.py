from pathlib import Path

import pytest

from resnetlab.cli import main


@pytest.fixture
def run(capsys):
    """Runs a command in this process: exit code, standard output, standard error."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        try:
            code = main(list(map(str, words)))
        except SystemExit as exit_:  # tyro leaves by itself
            code = exit_.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call

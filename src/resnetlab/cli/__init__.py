"""The command line: verbs in ``verbs``, what they show in ``tables`` and ``progress``."""

from resnetlab.cli.main import main

__all__ = ["main"]

"""The command line: the verbs in ``commands``, what they show in ``tables`` and ``progress``."""

from resnetlab.cli.main import main as main
from resnetlab.cli.main import run as run

"""``python -m resnetlab`` is the command ``resnetlab``."""

from resnetlab.cli import run

if __name__ == "__main__":
    run()

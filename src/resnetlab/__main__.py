"""``python -m resnetlab`` is the command ``resnetlab``."""

from resnetlab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

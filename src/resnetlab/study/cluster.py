"""A cluster of Ray: whether one answers at an address, and joining it, or one of one's own, as a driver."""

import logging
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from resnetlab.core.errors import AddressError, ConfigError, load_extra, one_line

LOCAL = "local"
PATIENCE = 20.0
"""Seconds within which an address must answer."""


def check_ray(address: str) -> None:
    """Raise ``MissingExtraError`` without the extra, ``ConfigError`` for no address or under torchrun,
    ``AddressError`` where nothing answers; before anything is written."""
    from resnetlab.train.distributed import started_by_torchrun

    if not address:
        raise ConfigError("--ray names no address; give HOST:PORT, auto for the cluster of this machine, or local")
    if "://" in address:
        raise ConfigError(f"--ray {address}: clients of Ray are not supported; give HOST:PORT")
    if started_by_torchrun():
        raise ConfigError("--ray spreads the runs by itself; give the command without torchrun")
    _load_ray(address)
    if address == LOCAL:
        return
    where = [] if address == "auto" else ["--address", address]
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", *where]
    try:
        # Ray itself waits for minutes, and ends the process in ways of its own.
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
        # One that asks for its token is there; what Ray knows of tokens it brings when it joins.
        answered = done.returncode == 0 or b"AuthenticationError" in done.stderr
    except subprocess.TimeoutExpired:
        answered = False
    if not answered:
        raise AddressError(
            f"no cluster of Ray answers at {address}; begin one with: ray start --head, on other machines with "
            "ray start --address HOST:PORT, and give that HOST:PORT; or give local"
        )


def _load_ray(address: str) -> Any:
    """The package. What it takes from the environment it takes when it is imported.

    Nothing is told to anyone outside. A Ray of one's own listens on every interface; a token that is known to this
    process and those that it starts alone keeps others out.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address == LOCAL and "ray" not in sys.modules:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return load_extra("ray", "study --ray", "ray", "; or share the runs by --workers")


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, as a driver of the cluster at ``address``, or with ``local`` of one of its own, as long as the block.

    Its own one takes as many tasks at a time as there are cores. Raises ``AddressError``.
    """
    ray = _load_ray(address)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    own = {"num_cpus": len(os.sched_getaffinity(0)), "include_dashboard": False} if address == LOCAL else {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, **quiet, **own)
    except (OSError, RuntimeError, ValueError) as error:
        raise AddressError(f"cannot join the Ray at {address}: {one_line(error)}") from error
    finally:
        # Ray sets its own, which would end the driver where it stands.
        for number, handler in handlers.items():
            with suppress(ValueError):  # another thread than the main one has none
                signal.signal(number, handler)
    try:
        yield ray
    finally:
        ray.shutdown()

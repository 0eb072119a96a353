"""What clients do to a server: too slow, damaged, and in the middle of something when it ends."""

import json
import random
import signal
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from resnetlab.data.decode import read_image
from tests.deploy.bundles import linear_bundle
from tests.deploy.serve.requests import LENGTH, damaged
from tests.deploy.serve.servers import NO_ANSWER, Running, drip, plain_uvicorn, serving, under_load
from tests.faults.processes import Pool

WITHIN = 11.0
"""Seconds in which a slow client must be cut off; the patience of a server is 10 by default."""
HEAD = b"POST /predict HTTP/1.1\r\nHost: here\r\n" + b"X: y\r\n" * 50
BODY = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 5000\r\n\r\n"


def slow(count: int, seed: int, pool: Pool) -> dict[str, Any]:
    """``count`` clients at once, half of which send a byte of a head a second, half a byte of a body.

    Each must be cut off within 11 seconds. Control: uvicorn as it is.
    """
    with tempfile.TemporaryDirectory() as name:
        with serving(linear_bundle(Path(name) / "insects")) as server:
            held = _cut_off(server, count)
        with plain_uvicorn() as plain:
            kept = count - _cut_off(plain, count)
    pool.tick(count, count)
    return {"n": count, "held": held, "control_n": count, "control_lost": kept}


def _cut_off(server: Running, count: int) -> int:
    def client(number: int) -> bool:
        with server.connect() as connection:
            started = time.monotonic()
            if number % 2:
                connection.sendall(BODY)
            return drip(connection, b"x" * 60 if number % 2 else HEAD, started + WITHIN, 1.0)

    with ThreadPoolExecutor(count) as clients:
        return sum(clients.map(client, range(count)))


def drain(count: int, seed: int, pool: Pool) -> dict[str, Any]:
    """``count`` times SIGTERM at a random moment, while 32 clients ask without pause, every second time of two
    processes.

    All requests that were sent before it must be answered, and the code be 0. Control: SIGKILL.
    """
    jobs = [(f"{seed}/{number}", signal.SIGTERM, 1 + number % 2) for number in range(count)]
    found = pool.map(_ended, jobs)
    control = pool.map(_ended, [(draw, signal.SIGKILL, 1) for draw, _, _ in jobs[: max(1, count // 4)]])
    return {
        "n": count,
        "held": sum(lost == 0 and code == 0 for _, lost, code in found),
        "requests": sum(sent for sent, _, _ in found),
        "requests_lost": sum(lost for _, lost, _ in found),
        "control_n": len(control),
        "control_lost": sum(lost > 0 for _, lost, _ in control),
    }


def _ended(draw: str, number: int, processes: int) -> tuple[int, int, int]:
    with tempfile.TemporaryDirectory() as name:
        bundle = linear_bundle(Path(name) / "insects")
        with serving(bundle, "--processes", str(processes)) as server:
            sent, lost = under_load(server, number, seconds=random.Random(draw).uniform(0.3, 1.0))
            return sent, lost, server.process.wait()


def bodies(count: int, seed: int, pool: Pool) -> dict[str, Any]:
    """``count`` requests with damaged bodies: images, and the protocol in JSON and in binary.

    Each must have an answer, and none of 500 or above. Control: the same bodies, read without a check of what is in
    them.
    """
    codes: Counter[int] = Counter()
    unguarded = 0
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, serving(linear_bundle(Path(name) / "insects")) as server:
        for number in range(count):
            path, headers, body = damaged(draw)
            try:
                codes[server.ask("POST", path, body, headers).code] += 1
            except NO_ANSWER:
                codes[0] += 1
            unguarded += _fails_unguarded(path, headers, body)
            pool.tick(number + 1, count)
    held = sum(n for code, n in codes.items() if 200 <= code < 500)
    told = {str(code): n for code, n in sorted(codes.items())}
    return {"n": count, "held": held, "codes": told, "control_n": count, "control_lost": unguarded}


def _fails_unguarded(path: str, headers: dict[str, str], body: bytes) -> bool:
    try:
        if path == "/predict":
            read_image(body, 8)
            return False
        length = int(headers.get(LENGTH, len(body)))
        (tensor,) = json.loads(body[:length])["inputs"]
        values = np.frombuffer(body[length:], np.uint8) if headers else np.array(tensor["data"], np.uint8)
        values.reshape(tensor["shape"]).astype(np.float32)
    except Exception:
        return True
    return False

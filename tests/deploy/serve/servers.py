"""Servers in processes of their own, and clients that speak HTTP to them byte by byte."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PLAIN = """
import sys, uvicorn
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})
config = uvicorn.Config(app, port=0, http="httptools", ws="none", log_config=None, lifespan="off")
listener = config.bind_socket()
listener.listen()
print("http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
uvicorn.Server(config).run([listener])
"""
"""The control: uvicorn as it is."""


@dataclass(frozen=True)
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    process: "subprocess.Popen[str]"
    port: int

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own; a body that is an iterator goes in chunks."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked=hasattr(body, "__next__"))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def predict(self, image: bytes) -> Any:
        return self.ask("POST", "/predict", image).json["predictions"]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def end(self, number: int = signal.SIGTERM, seconds: float = 40) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def peak(self) -> int:
        """The most memory that the process has held, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@contextmanager
def serving(bundle: Path, *flags: str, ready: int = 200) -> Iterator[Running]:
    """``resnetlab serve``, where ``/readyz`` answers with ``ready``."""
    command = [sys.executable, "-m", "resnetlab", "serve", str(bundle), "--port", "0", "--threads", "1", *flags]
    with _started(command) as server:
        answer = server.ask("GET", "/readyz")
        assert answer.code == ready, answer
        yield server


@contextmanager
def plain_uvicorn() -> Iterator[Running]:
    """The control, of which nothing is asked but to answer."""
    with _started([sys.executable, "-c", PLAIN]) as server:
        yield server


@contextmanager
def _started(command: list[str]) -> Iterator[Running]:
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "http://" in line, f"{line!r}, code {process.poll()}"
        yield Running(process, int(line.partition("127.0.0.1:")[2].split()[0]))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        process.stdout.close()


def image(seed: int = 0, kind: str = "PNG", side: int = 8) -> bytes:
    """The file of an image of noise."""
    stream = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def request(path: str, body: bytes, headers: str = "") -> bytes:
    """A POST, as it goes over the line."""
    return f"POST {path} HTTP/1.1\r\nHost: here\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def drip(connection: socket.socket, content: bytes, until: float, pause: float) -> bool:
    """Send a byte at a time until the server closes the connection (True) or ``until`` has come (False)."""
    connection.setblocking(False)
    for byte in content:
        try:
            connection.send(bytes([byte]))
        except OSError:
            return True
        rest = time.monotonic() + pause
        while time.monotonic() < min(rest, until):
            try:
                if connection.recv(4096) == b"":
                    return True
            except BlockingIOError:
                time.sleep(min(0.05, pause))
            except OSError:
                return True
        if time.monotonic() >= until:
            return False
    return False


def under_load(server: Running, number: int, clients: int = 32, seconds: float = 0.5) -> tuple[int, int]:
    """Send the signal while so many clients ask without pause, half of them on kept connections.

    How many requests were sent before the signal, to the last byte, and how many of these had no whole answer of 200.
    """
    content = request("/predict", image())
    stop = threading.Event()

    def ask(kept: bool) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = []
        while not stop.is_set():
            try:
                with server.connect() as connection:
                    goes_on = True
                    while goes_on and not stop.is_set():
                        connection.sendall(content)
                        found.append((time.monotonic(), False))
                        answered, goes_on = _whole_answer(connection)
                        found[-1] = (found[-1][0], answered)
                        goes_on = goes_on and kept
            except NO_ANSWER:
                # Refused: it has ended. A request that was sent keeps its False.
                if server.process.poll() is not None:
                    break
        return found

    with ThreadPoolExecutor(clients) as threads:
        asking = [threads.submit(ask, client % 2 == 0) for client in range(clients)]
        time.sleep(seconds)
        at = time.monotonic()
        server.process.send_signal(number)
        server.process.wait(40)
        stop.set()
        before = [answered for one in asking for moment, answered in one.result() if moment < at]
    return len(before), before.count(False)


def _whole_answer(connection: socket.socket) -> tuple[bool, bool]:
    """Whether a whole answer of 200 came, and whether the connection goes on."""
    answer = HTTPResponse(connection)
    answer.begin()
    whole = answer.status == 200 and len(answer.read()) > 0
    return whole, not answer.will_close


NO_ANSWER = (OSError, HTTPException)
"""What a client is told where a server goes away."""

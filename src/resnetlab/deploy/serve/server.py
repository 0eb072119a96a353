"""Serve a bundle over HTTP, from one process or from several on one port. torch is not loaded.

SIGTERM and Ctrl-C end a server once every request that it has accepted is answered.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from resnetlab.core.errors import AddressError, ResNetLabError, load_extra
from resnetlab.deploy.bundle import read_bundle
from resnetlab.deploy.engines import open_bundle
from resnetlab.deploy.serve.clients import BACKLOG, Clients
from resnetlab.deploy.serve.config import ServeConfig
from resnetlab.deploy.serve.deadlines import impatient
from resnetlab.deploy.serve.metrics import FOLDER, forget_process
from resnetlab.deploy.share import local_folder
from resnetlab.deploy.verify import verify_engine
from resnetlab.deploy.web.page import served_page

if TYPE_CHECKING:
    from uvicorn import Server

    from resnetlab.deploy.serve.routes import Service

GRACE = 0.1
"""Seconds in which what was sent before the end is still accepted and read."""
FETCHING = 30
"""Seconds after which answers that nobody fetches no longer keep a server from ending."""
RESTART = 1.0
"""Seconds before a process that was killed is started again."""
PACKAGES = ("uvicorn", "httptools", "uvloop", "prometheus_client")


def serve(source: str | Path, config: ServeConfig, tell: Callable[[str], None]) -> None:
    """Serve the bundle in a folder, or of ``hub:owner/name``, until a signal ends it; ``tell`` is given a line at the
    start and one at the end.

    One of several processes that is killed is started again; an error in one ends all.

    Raises ``AddressError`` where the address is taken, ``MissingExtraError`` without the extra ``serve``, and what
    ``open_bundle`` raises.
    """
    folder = local_folder(source)
    bundle = read_bundle(folder)
    with _listening(config) as listener:
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        processes = f", {config.processes} processes" if config.processes > 1 else ""
        line = f"serving {bundle.name} at {address} ({config.engine}{processes}); Ctrl-C ends it"
        serve_it = _serve_here if config.processes == 1 else _serve_by_children
        serve_it(folder, config, listener, lambda: tell(line))
    tell(f"ended {bundle.name}: every request that was accepted is answered")


def _listening(config: ServeConfig) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        # Only a listening socket keeps others from its port.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise AddressError(
            f"cannot listen on {config.host} port {config.port} ({error.strerror or error}); give another --port, or "
            "--port 0 for a free one"
        ) from error
    return listener


def _serve_here(folder: Path, config: ServeConfig, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve from this process until a signal ends it."""
    for package in (*PACKAGES, *(["onnxruntime"] if config.engine == "onnx" else [])):
        load_extra(package, "serve", "serve")
    from uvicorn import Config

    from resnetlab.deploy.serve.routes import Service

    bundle = read_bundle(folder)
    threads = config.threads or max(1, len(os.sched_getaffinity(0)) // config.processes)
    predictor = open_bundle(bundle, folder, config.engine, threads)
    service = Service(
        bundle,
        predictor,
        config,
        check=lambda: verify_engine(predictor, bundle, folder),
        page=served_page(bundle),
    )
    server = _draining(
        service,
        Config(
            service,
            http=impatient(config.patience, config.body_bytes),
            loop="uvloop",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=FETCHING,
        ),
    )
    service.clients = Clients(server.server_state.connections, listener)
    service.prepare()
    started()
    server.run([listener])


def _draining(service: "Service", config: Any) -> "Server":
    """uvicorn's server, which ends without an error at a signal, and reads before what was sent until then."""
    from uvicorn import Server

    class Draining(Server):
        def handle_exit(self, sig: int, _: Any) -> None:
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            self.server_state.default_headers = [*self.server_state.default_headers, (b"connection", b"close")]
            # From now on a thread computes, so that the loop is free to accept and to read.
            service.fast = False
            await asyncio.sleep(GRACE)
            if service.clients:
                await service.clients.accept_all()
            for server in self.servers:
                server.close()
            await asyncio.sleep(GRACE)
            await super().shutdown(sockets)

    return Draining(config)


def _serve_by_children(folder: Path, config: ServeConfig, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve from ``config.processes`` processes, which share the listening socket, until a signal ends them."""
    context = get_context("spawn")
    errors, sender = context.Pipe(duplex=False)
    children: list[SpawnProcess] = []
    ending = False

    def end(*_: Any) -> None:
        nonlocal ending
        ending = True
        # The children have it too; it must not outlive them.
        listener.close()
        for child in children:
            child.terminate()

    def start() -> None:
        child = context.Process(target=_child, args=(folder, config, listener, sender))
        child.start()
        children.append(child)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    with TemporaryDirectory(prefix="resnetlab-metrics-") as counts:
        os.environ[FOLDER] = counts
        try:
            for _ in range(config.processes):
                start()
            started()
            code = 0
            while children:
                wait([child.sentinel for child in children])
                for child in [child for child in children if not child.is_alive()]:
                    children.remove(child)
                    child.join()
                    if child.exitcode and child.exitcode > 0 and not ending:
                        code = child.exitcode
                        end()
                    elif not ending:
                        forget_process(child.pid)
                        time.sleep(RESTART)
                        if not ending:
                            start()
        finally:
            end()
            for number, handler in before.items():
                signal.signal(number, handler)
            del os.environ[FOLDER]
    if code:
        raise errors.recv() if errors.poll() else ResNetLabError(f"a process of the server ended with {code}")


def _child(folder: Path, config: ServeConfig, listener: socket.socket, errors: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _serve_here(folder, config, listener, lambda: None)
    except ResNetLabError as error:
        errors.send(error)
        sys.exit(error.exit_code)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)

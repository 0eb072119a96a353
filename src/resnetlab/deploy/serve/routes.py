"""The routes of a server: one image to ``/predict``, the Open Inference Protocol below ``/v2``, and what operators ask.
No torch is loaded here.
"""

import gc
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import DataError, one_line
from resnetlab.data.decode import Pixels
from resnetlab.deploy.bundle import Bundle
from resnetlab.deploy.engines import Logits, Predictor
from resnetlab.deploy.preprocessing import predictions
from resnetlab.deploy.serve.batching import Batcher, QueueFullError
from resnetlab.deploy.serve.config import ServeConfig
from resnetlab.deploy.serve.metrics import Metrics
from resnetlab.deploy.serve.openapi import openapi
from resnetlab.deploy.serve.protocol import (
    JSON_LENGTH,
    VERSION,
    model_configuration,
    model_metadata,
    read_request,
    server_metadata,
    write_answer,
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Endpoint = Callable[[Request], Awaitable[Response]]

DECODERS = 4
"""Threads that decode large images, at most: one takes up to 150 MB while it is decoded."""
LARGE = 64 * 1024
"""Bytes from which images of a batch are decoded side by side; with less the threads would cost more than they save."""
HELD_BODIES = 8
"""So many bodies of the largest size are held at a time, whole or in part."""
TOP = 5


class Service:
    """A bundle behind HTTP, an ASGI application.

    ``check`` runs the golden images through the predictor and raises what is wrong with the answers; then ``/readyz``
    and all that asks the network are answered with 503. ``page`` is the HTML of ``/``.
    """

    def __init__(
        self, bundle: Bundle, predictor: Predictor, config: ServeConfig, *, check: Callable[[], object], page: str
    ) -> None:
        self.bundle, self.predictor, self.config, self.check, self.html = bundle, predictor, config, check, page
        self.metrics = Metrics()
        self.batcher: Batcher[bytes | Pixels, Logits] = Batcher(
            self.compute,
            most=config.max_batch,
            wait=config.max_wait_ms / 1000,
            queue=config.queue,
            on_batch=self.metrics.batch.observe,
            on_held=self.metrics.held.set,
        )
        self.decoders = ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1), "decode")
        self.unready: str | None = None
        self.most_bytes, self.held_bytes = config.body_bytes, 0
        self.version = str(describe_environment("cpu", threads=1)["resnetlab"])
        self.api = openapi(bundle, self.version)
        self.routes = self.table()

    def table(self) -> dict[str, tuple[str, Endpoint]]:
        """Method and answer by path."""
        get: dict[str, Endpoint] = {
            "/": self.page,
            "/healthz": self.live,
            "/readyz": self.ready,
            "/metrics": self.measure,
            "/openapi.json": self.describe,
            "/v2": self.server,
            "/v2/health/live": self.live,
            "/v2/health/ready": self.ready,
        }
        post: dict[str, Endpoint] = {"/predict": self.predict}
        for version in ("", f"/versions/{VERSION}"):
            model = f"/v2/models/{self.bundle.name}{version}"
            get |= {model: self.model, f"{model}/ready": self.ready, f"{model}/config": self.configuration}
            post[f"{model}/infer"] = self.infer
        return {path: ("GET", endpoint) for path, endpoint in get.items()} | {
            path: ("POST", endpoint) for path, endpoint in post.items()
        }

    def prepare(self) -> None:
        """Check the golden images; before the first connection is accepted, so that one of several processes leaves
        requests to the others until it is ready."""
        try:
            self.check()
        except Exception as error:
            self.unready = one_line(error)
            logging.getLogger("resnetlab").error("not ready: %s", self.unready)
        self.metrics.ready.set(self.unready is None)
        # What was loaded stays, and requests leave few cycles: the collector comes less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request and count it; the connection of one whose body was not read to its end is closed."""
        started, code = perf_counter(), 500
        unread = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )

        async def received() -> Message:
            nonlocal unread
            message = await receive()
            unread = bool(message.get("more_body"))
            return message

        method, endpoint = self.routes.get(scope["path"], ("", None))
        try:
            response = await self.respond(Request(scope, received), method, endpoint)
            code = response.status_code
            if unread:
                response.headers["connection"] = "close"
            await response(scope, receive, send)
        finally:
            self.metrics.count("none" if endpoint is None else endpoint.__name__, code, perf_counter() - started)

    async def respond(self, request: Request, method: str, endpoint: Endpoint | None) -> Response:
        """The answer, or in JSON, as the protocol has it, what is wrong."""
        try:
            if endpoint is None or request.method not in (method, "HEAD" if method == "GET" else method):
                where = f"{request.method} {request.scope['path']} is not answered here; GET /openapi.json says what is"
                raise HTTPException(404 if endpoint is None else 405, where)
            return await endpoint(request)
        except HTTPException as error:
            return JSONResponse({"error": error.detail}, error.status_code, error.headers)
        except QueueFullError:
            return JSONResponse({"error": "too many requests wait; try again"}, 503, {"Retry-After": "1"})
        except ClientDisconnect:
            # It hung up, or was cut off because it was too slow: nobody reads this.
            return Response(status_code=499)

    def compute(self, jobs: list[bytes | Pixels]) -> list[Logits | Exception]:
        """The logits of a batch of image files and of pixels; of an image that cannot be read, the ``DataError``."""
        large = sum(len(job) for job in jobs if isinstance(job, bytes)) >= LARGE
        decoded = list(self.decoders.map(self.decode, jobs) if large else map(self.decode, jobs))
        arrays = [one for one in decoded if not isinstance(one, Exception)]
        if not arrays:
            return list(decoded)  # type: ignore[arg-type]  # all are errors
        logits = self.predictor.logits(np.concatenate(arrays))
        ends = np.cumsum([len(one) for one in arrays])
        rows = iter(np.split(logits, ends[:-1]))
        return [one if isinstance(one, Exception) else next(rows) for one in decoded]

    def decode(self, job: bytes | Pixels) -> Pixels | DataError:
        """The pixels ``(N, side, side, C)`` of a job."""
        if not isinstance(job, bytes):
            return job
        try:
            return self.bundle.preprocessing.pixels(job)[None]
        except DataError as error:
            return error

    async def predict(self, request: Request) -> Response:
        """The most probable classes of the image that is the body."""
        self.require_ready()
        top = _top(request)
        async with self.body(request) as body:
            if request.headers.get("content-type", "").startswith("multipart/"):
                raise HTTPException(415, "send the image itself as the body, not a form: curl --data-binary @cat.jpg")
            with self.batcher.place():
                try:
                    logits = await self.batcher.answer(body)
                except DataError as error:
                    raise HTTPException(415, str(error)) from error
        (found,) = predictions(logits, self.bundle.classes, top)
        rows = [
            {"class": name, "probability": share}
            for name, share in zip(found.classes, found.probabilities, strict=True)
        ]
        return JSONResponse({"model": self.bundle.name, "predictions": rows})

    async def infer(self, request: Request) -> Response:
        """Logits, or classes, of pixels, by the Open Inference Protocol."""
        self.require_ready()
        async with self.body(request) as body:
            try:
                asked = read_request(body, request.headers.get(JSON_LENGTH), self.bundle, self.config.max_batch)
            except DataError as error:
                raise HTTPException(400, str(error)) from error
            with self.batcher.place(len(asked.pixels)):
                logits = await self.batcher.answer(asked.pixels, len(asked.pixels))
        content, json_length = write_answer(asked, logits, self.bundle)
        if json_length is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={JSON_LENGTH: str(json_length)}, media_type="application/octet-stream")

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, as long as it is needed; one that is too large is not read to its end."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "compressed bodies are not read; send it as it is")
        too_large = HTTPException(413, f"the body is larger than {self.config.max_body}, the most that is taken")
        if int(request.headers.get("content-length", 0)) > self.most_bytes:
            raise too_large
        held = bytearray()
        try:
            async for chunk in request.stream():
                held += chunk
                self.held_bytes += len(chunk)
                if len(held) > self.most_bytes:
                    raise too_large
                if self.held_bytes > HELD_BODIES * self.most_bytes:
                    raise QueueFullError
            yield bytes(held)
        finally:
            self.held_bytes -= len(held)

    def require_ready(self) -> None:
        """Raises ``HTTPException`` where the network is not to be asked."""
        if self.unready:
            raise HTTPException(503, f"not ready: {self.unready}", {"Retry-After": "1"})

    async def live(self, _: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"live": True})

    async def ready(self, _: Request) -> Response:
        """Whether the golden images passed."""
        self.require_ready()
        return JSONResponse({"ready": True})

    async def measure(self, _: Request) -> Response:
        """The counts, for Prometheus."""
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self, _: Request) -> Response:
        """A page to drop images on."""
        return HTMLResponse(self.html)

    async def describe(self, _: Request) -> Response:
        """The routes, as OpenAPI."""
        return JSONResponse(self.api)

    async def server(self, _: Request) -> Response:
        """Who answers."""
        return JSONResponse(server_metadata(self.version))

    async def model(self, _: Request) -> Response:
        """Inputs and outputs of the network."""
        return JSONResponse(model_metadata(self.bundle))

    async def configuration(self, _: Request) -> Response:
        """The same, as Triton configures it."""
        return JSONResponse(model_configuration(self.bundle, self.config.max_batch))


def _top(request: Request) -> int:
    """``?top=``. Raises ``HTTPException`` for what is no number of classes."""
    if not request.scope["query_string"]:
        return TOP
    top = request.query_params.get("top", str(TOP))
    if not (top.isascii() and top.isdigit() and len(top) < 10 and int(top) >= 1):
        raise HTTPException(400, f"top={top[:20]!r} is not possible: it must be a number of classes, 1 or more")
    return int(top)

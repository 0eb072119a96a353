"""The routes of a server: one image to ``/predict``, the Open Inference Protocol below ``/v2``, and what operators ask.
No torch is loaded here.
"""

import gc
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from resnetlab.core.environment import describe_environment
from resnetlab.core.errors import DataError, one_line
from resnetlab.data.decode import Pixels, pixels_said
from resnetlab.deploy.bundle import Bundle
from resnetlab.deploy.engines import Logits, Predictor
from resnetlab.deploy.preprocessing import Prediction, predictions
from resnetlab.deploy.serve.batching import Batcher, QueueFullError
from resnetlab.deploy.serve.clients import Clients
from resnetlab.deploy.serve.config import ServeConfig
from resnetlab.deploy.serve.messages import (
    BINARY,
    HTML,
    TEXT,
    Answer,
    ClientGoneError,
    Message,
    Receive,
    RefusalError,
    Request,
    Send,
    in_json,
)
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

Endpoint = Callable[[Request], Awaitable[Answer]]

DECODERS = 4
"""Threads that decode large images, at most: one takes up to 150 MB while it is decoded."""
LARGE = 64 * 1024
"""Bytes from which images of a batch are decoded side by side; with less the threads would cost more than they save."""
SMALL = 256 * 256
"""Pixels below which an image keeps the event loop for no time to speak of."""
QUICK = 0.01
"""Seconds that a full batch may take so that the event loop computes it itself: others wait for so long."""
HELD_BODIES = 8
"""So many bodies of the largest size are held at a time, whole or in part."""
TOP = 5


@dataclass(frozen=True, slots=True)
class ImageJob:
    """An image file, of which the ``top`` most probable classes are asked."""

    content: bytes
    top: int


Job = ImageJob | Pixels


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
        self.batcher: Batcher[Job, Prediction | Logits] = Batcher(
            self.compute,
            most=config.max_batch,
            wait=config.max_wait_ms / 1000,
            queue=config.queue,
            others=lambda waiting: self.clients is None or self.clients.can_ask(waiting),
            quick=self.is_quick,
            on_batch=self.metrics.batch.observe,
            on_held=self.metrics.held.set,
        )
        self.decoders = ThreadPoolExecutor(min(DECODERS, os.cpu_count() or 1), "decode")
        self.unready: str | None = None
        self.fast = False
        self.clients: Clients | None = None
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
        self.fast = not self.unready and self.seconds_of_batch() < QUICK
        # What was loaded stays, and requests leave few cycles: the collector comes less often.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request and count it; the connection of one whose body was not read to its end is closed."""
        started, code = perf_counter(), 500
        request = Request(scope, receive)
        method, endpoint = self.routes.get(request.path, ("", None))
        try:
            answer = await self.respond(request, method, endpoint)
            code = answer.code
            await answer.send(send, close=request.unread)
        finally:
            self.metrics.count("none" if endpoint is None else endpoint.__name__, code, perf_counter() - started)

    async def respond(self, request: Request, method: str, endpoint: Endpoint | None) -> Answer:
        """The answer, or in JSON, as the protocol has it, what is wrong."""
        try:
            if endpoint is None or request.method not in (method, "HEAD" if method == "GET" else method):
                where = f"{request.method} {request.path} is not answered here; GET /openapi.json says what is"
                raise RefusalError(404 if endpoint is None else 405, where)
            return await endpoint(request)
        except RefusalError as error:
            return in_json({"error": str(error)}, error.code, error.headers)
        except QueueFullError:
            return in_json({"error": "too many requests wait; try again"}, 503, {"Retry-After": "1"})
        except ClientGoneError:
            return Answer(b"", code=499)

    def compute(self, jobs: list[Job]) -> list[Prediction | Logits | Exception]:
        """Of a batch of image files and of pixels: the classes of each image, the logits of each of the others; of an
        image that cannot be read, the ``DataError``."""
        large = sum(len(job.content) for job in jobs if isinstance(job, ImageJob)) >= LARGE
        decoded = list(self.decoders.map(self.decode, jobs) if large else map(self.decode, jobs))
        arrays = [one for one in decoded if not isinstance(one, Exception)]
        if not arrays:
            return list(decoded)  # type: ignore[arg-type]  # all are errors
        logits = self.predictor.logits(np.concatenate(arrays))
        top = max((job.top for job in jobs if isinstance(job, ImageJob)), default=0)
        # Of all images at a time: one by one it would take as long as reading them.
        found = predictions(logits, self.bundle.classes, top) if top else []
        answers: list[Prediction | Logits | Exception] = []
        row = 0
        for job, one in zip(jobs, decoded, strict=True):
            if isinstance(one, Exception):
                answers.append(one)
                continue
            answers.append(found[row].first(job.top) if isinstance(job, ImageJob) else logits[row : row + len(one)])
            row += len(one)
        return answers

    def seconds_of_batch(self) -> float:
        """What the network takes for a full batch: the least of three."""
        side, channels = self.bundle.preprocessing.side, self.bundle.preprocessing.channels
        pixels = np.zeros((self.config.max_batch, side, side, channels), np.uint8)
        seconds = []
        for _ in range(3):
            started = perf_counter()
            self.predictor.logits(pixels)
            seconds.append(perf_counter() - started)
        return min(seconds)

    def is_quick(self, jobs: list[Job]) -> bool:
        """Whether a batch may be computed between two turns of the event loop: the network is fast, and the images are
        small by what their heads say."""
        files = [job.content for job in jobs if isinstance(job, ImageJob)]
        return (
            self.fast
            and sum(map(len, files)) < LARGE
            and all((pixels_said(content) or SMALL) < SMALL for content in files)
        )

    def decode(self, job: Job) -> Pixels | DataError:
        """The pixels ``(N, side, side, C)`` of a job."""
        if not isinstance(job, ImageJob):
            return job
        try:
            return self.bundle.preprocessing.pixels(job.content)[None]
        except DataError as error:
            return error

    async def predict(self, request: Request) -> Answer:
        """The most probable classes of the image that is the body."""
        self.require_ready()
        top = _top(request)
        with self.body(request) as body:
            content = await body
            if request.header("content-type").startswith("multipart/"):
                raise RefusalError(415, "send the image itself as the body, not a form: curl --data-binary @cat.jpg")
            with self.batcher.place():
                try:
                    found = await self.batcher.answer(ImageJob(content, top))
                except DataError as error:
                    raise RefusalError(415, str(error)) from error
        assert isinstance(found, Prediction)
        rows = [
            {"class": name, "probability": share}
            for name, share in zip(found.classes, found.probabilities, strict=True)
        ]
        return in_json({"model": self.bundle.name, "predictions": rows})

    async def infer(self, request: Request) -> Answer:
        """Logits, or classes, of pixels, by the Open Inference Protocol."""
        self.require_ready()
        with self.body(request) as body:
            content = await body
            try:
                length = request.header(JSON_LENGTH) or None
                asked = read_request(content, length, self.bundle, self.config.max_batch)
            except DataError as error:
                raise RefusalError(400, str(error)) from error
            with self.batcher.place(len(asked.pixels)):
                logits = await self.batcher.answer(asked.pixels, len(asked.pixels))
        assert not isinstance(logits, Prediction)
        answer, json_length = write_answer(asked, logits, self.bundle)
        if json_length is None:
            return Answer(answer)
        return Answer(answer, BINARY, headers={JSON_LENGTH: str(json_length)})

    @contextmanager
    def body(self, request: Request) -> Iterator[Awaitable[bytes]]:
        """The body of a request, as long as it is needed; one that is too large is not read to its end."""
        if request.header("content-encoding", "identity") != "identity":
            raise RefusalError(415, "compressed bodies are not read; send it as it is")
        too_large = RefusalError(413, f"the body is larger than {self.config.max_body}, the most that is taken")
        if request.length > self.most_bytes:
            raise too_large
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            held += size
            self.held_bytes += size
            if held > self.most_bytes:
                raise too_large
            if self.held_bytes > HELD_BODIES * self.most_bytes:
                raise QueueFullError

        try:
            yield request.body(hold)
        finally:
            self.held_bytes -= held

    def require_ready(self) -> None:
        """Raises ``RefusalError`` where the network is not to be asked."""
        if self.unready:
            raise RefusalError(503, f"not ready: {self.unready}", {"Retry-After": "1"})

    async def live(self, _: Request) -> Answer:
        """Whether the process answers."""
        return in_json({"live": True})

    async def ready(self, _: Request) -> Answer:
        """Whether the golden images passed."""
        self.require_ready()
        return in_json({"ready": True})

    async def measure(self, _: Request) -> Answer:
        """The counts, for Prometheus."""
        return Answer(self.metrics.page(), TEXT)

    async def page(self, _: Request) -> Answer:
        """A page to drop images on."""
        return Answer(self.html.encode(), HTML)

    async def describe(self, _: Request) -> Answer:
        """The routes, as OpenAPI."""
        return in_json(self.api)

    async def server(self, _: Request) -> Answer:
        """Who answers."""
        return in_json(server_metadata(self.version))

    async def model(self, _: Request) -> Answer:
        """Inputs and outputs of the network."""
        return in_json(model_metadata(self.bundle))

    async def configuration(self, _: Request) -> Answer:
        """The same, as Triton configures it."""
        return in_json(model_configuration(self.bundle, self.config.max_batch))


def _top(request: Request) -> int:
    """``?top=``. Raises ``RefusalError`` for what is no number of classes."""
    top = request.parameter("top")
    if top is None:
        return TOP
    if not (top.isascii() and top.isdigit() and len(top) < 10 and int(top) >= 1):
        raise RefusalError(400, f"top={top[:20]!r} is not possible: it must be a number of classes, 1 or more")
    return int(top)

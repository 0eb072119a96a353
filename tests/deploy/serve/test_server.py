"""``resnetlab serve`` as its clients see it."""

import json
import os
import random
import re
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnetlab.deploy.bundle import read_bundle
from resnetlab.deploy.engines import open_bundle
from resnetlab.deploy.preprocessing import predictions
from tests.deploy.bundles import CLASSES, SIDE, linear_bundle, logits_of
from tests.deploy.serve.requests import INFER, LENGTH, damaged
from tests.deploy.serve.servers import NO_ANSWER, drip, image, plain_uvicorn, serving, under_load

SOON = 1.0
"""The patience of the servers here, in seconds."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return linear_bundle(tmp_path_factory.mktemp("bundles") / "insects")


@pytest.fixture(scope="module")
def server(bundle):
    with serving(bundle, "--patience", str(SOON), "--max-body", "1MB") as running:
        yield running


@pytest.fixture(scope="module")
def predictor(bundle):
    return open_bundle(read_bundle(bundle), bundle, "onnx", 1)


def expected(predictor, content: bytes, top: int = 4):
    pixels = predictor.preprocessing.pixels(content)
    (found,) = predictions(predictor.logits(pixels[None]), predictor.classes, top)
    return dict(zip(found.classes, found.probabilities, strict=True))


def told(rows) -> dict[str, float]:
    return {row["class"]: row["probability"] for row in rows}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_answers_are_the_predictors(server, predictor, kind):
    content = image(3, kind, side=20)
    answer = told(server.predict(content))
    assert answer == pytest.approx(expected(predictor, content), rel=1e-5)
    assert list(answer) == list(expected(predictor, content))


def test_each_of_many_clients_gets_its_own_answer(server, predictor):
    contents = [image(seed) for seed in range(60)]
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(server.predict, contents))
    for content, answer in zip(contents, answers, strict=True):
        assert told(answer) == pytest.approx(expected(predictor, content), rel=1e-5)


@pytest.mark.parametrize("top", [1, 2, 99])
def test_top_says_how_many_classes(server, top):
    rows = server.ask("POST", f"/predict?top={top}", image()).json["predictions"]
    assert len(rows) == min(top, len(CLASSES))


def test_pixels_by_the_protocol_in_json_and_in_binary(server):
    pixels = np.random.default_rng(5).integers(0, 256, (3, SIDE, SIDE, 1), np.uint8)
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape)}
    answer = server.ask("POST", INFER, json.dumps({"inputs": [{**tensor, "data": pixels.tolist()}]})).json
    assert (answer["model_name"], answer["outputs"][0]["shape"]) == ("insects", [3, 4])
    assert answer["outputs"][0]["data"] == pytest.approx(logits_of(pixels).ravel().tolist(), rel=1e-4, abs=1e-4)

    head = {"inputs": [{**tensor, "parameters": {"binary_data_size": pixels.size}}]}
    head["parameters"] = {"binary_data_output": True}
    body = json.dumps(head).encode()
    path = INFER.replace("/infer", "/versions/1/infer")
    answer = server.ask("POST", path, body + pixels.tobytes(), {LENGTH: str(len(body))})
    data = answer.body[int(answer.headers[LENGTH.lower()]) :]
    assert np.allclose(np.frombuffer(data, "<f4").reshape(3, 4), logits_of(pixels), rtol=1e-4, atol=1e-4)


def test_what_a_client_of_the_protocol_asks_first(server):
    for path in (
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/insects/ready",
        "/v2/models/insects/versions/1/ready",
    ):
        assert server.ask("GET", path).code == 200
    assert "binary_tensor_data" in server.ask("GET", "/v2").json["extensions"]
    metadata = server.ask("GET", "/v2/models/insects").json
    assert metadata["inputs"][0]["shape"] == [-1, SIDE, SIDE, 1]
    assert server.ask("GET", "/v2/models/insects/config").json["max_batch_size"] == 8


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "code", "words"),
    [
        ("GET", "/nowhere", None, {}, 404, "openapi.json"),
        ("GET", "/v2/models/other", None, {}, 404, "openapi.json"),
        ("GET", "/predict", None, {}, 405, "openapi.json"),
        ("POST", "/predict", b"", {}, 415, "cannot be read"),
        ("POST", "/predict", b"no image", {}, 415, "formats JPEG, PNG"),
        ("POST", "/predict?top=0", image(), {}, 400, "top='0'"),
        ("POST", "/predict?top=many", image(), {}, 400, "top='many'"),
        ("POST", "/predict", image(), {"Content-Type": "multipart/form-data; boundary=x"}, 415, "--data-binary"),
        ("POST", "/predict", image(), {"Content-Encoding": "gzip"}, 415, "compressed"),
        ("POST", INFER, b"{}", {}, 400, "inputs"),
        ("POST", "/predict", None, {"Content-Length": "1000001"}, 413, "1MB"),
    ],
)
def test_what_is_wrong_is_said_in_json(server, method, path, body, headers, code, words):
    answer = server.ask(method, path, body, headers)
    assert answer.code == code
    assert words in answer.json["error"]


def test_process_holds_no_torch(server):
    libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" in libraries
    assert "libtorch" not in libraries


def test_counts_are_those_of_the_requests(server):
    from prometheus_client.parser import text_string_to_metric_families

    def count(name: str, **labels: str) -> float:
        families = text_string_to_metric_families(server.ask("GET", "/metrics").body.decode())
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    names = {"predict": {"route": "predict", "code": "200"}, "refused": {"route": "predict", "code": "415"}}
    before = {name: count("resnetlab_requests_total", **labels) for name, labels in names.items()}
    timed, images = count("resnetlab_request_seconds_count", route="predict"), count("resnetlab_batch_images_sum")
    for _ in range(3):
        server.predict(image())
    server.ask("POST", "/predict", b"no image")
    after = {name: count("resnetlab_requests_total", **labels) for name, labels in names.items()}
    assert after == {"predict": before["predict"] + 3, "refused": before["refused"] + 1}
    assert count("resnetlab_request_seconds_count", route="predict") == timed + 4
    # What is no image shares a batch with those that are.
    assert count("resnetlab_batch_images_sum") == images + 4
    assert (count("resnetlab_held_images"), count("resnetlab_ready_processes")) == (0, 1)


def test_description_names_routes_that_are_there(server):
    description = server.ask("GET", "/openapi.json").json
    assert description["openapi"].startswith("3.")
    for path, operations in description["paths"].items():
        (method,) = operations
        assert server.ask(method.upper(), path).code not in (404, 405), path
    assert server.ask("GET", "/").headers["content-type"].startswith("text/html")


def test_damaged_bodies_are_refused_and_never_our_fault(server):
    draw = random.Random(1)
    codes = [
        server.ask("POST", path, body, headers).code for path, headers, body in (damaged(draw) for _ in range(100))
    ]
    assert set(codes) <= {200, 400, 415}
    assert codes.count(200) < 50 < sum(code in (400, 415) for code in codes)
    assert server.ask("GET", "/readyz").code == 200


def test_upload_without_end_is_refused_at_once_and_takes_no_memory(server):
    before = server.peak()
    with server.connect() as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")
        until_closed(connection)
    sent = 0

    def gigabyte():
        nonlocal sent
        for _ in range(1000):
            sent += 10**6
            yield bytes(10**6)

    try:
        answer = server.ask("POST", "/predict", gigabyte())
        assert (answer.code, answer.headers["connection"]) == (413, "close")
    except NO_ANSWER:
        pass  # the connection was closed while this side still sent
    assert sent < 50 * 10**6
    assert server.peak() - before < 40 * 2**20


def test_many_large_uploads_at_once_are_held_within_a_bound(server):
    before = server.peak()
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(20)]
        for connection in connections:
            with suppress(ConnectionError):
                connection.sendall(
                    b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n" + bytes(900_000)
                )
        answers = []
        for connection in connections:
            with suppress(ConnectionError):
                answers.append(connection.recv(99)[:12])
    # Eight are held, whose ends never come.
    assert set(answers) == {b"HTTP/1.1 503", b"HTTP/1.1 408"}
    assert answers.count(b"HTTP/1.1 408") <= 8
    assert server.peak() - before < 40 * 2**20
    assert server.predict(image())


def until_closed(connection: socket.socket) -> None:
    with suppress(ConnectionError):
        while connection.recv(4096):
            pass


def test_image_of_many_pixels_in_few_bytes_is_refused_by_its_head(server):
    before = server.peak()
    stream = BytesIO()
    Image.new("1", (20_000, 20_000)).save(stream, "PNG")
    answer = server.ask("POST", "/predict", stream.getvalue())
    assert len(stream.getvalue()) < 100_000
    assert (answer.code, "too many pixels" in answer.json["error"]) == (415, True)
    assert server.peak() - before < 20 * 2**20


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: here\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: b\r\n" % n for n in range(300)) + b"\r\n", b"400"),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 9_000_000, b"413"),
    ],
)
def test_head_or_padding_without_end_is_refused(server, content, status):
    with server.connect() as connection:
        with suppress(ConnectionError):
            connection.sendall(content)
        assert connection.recv(4096).startswith(b"HTTP/1.1 " + status)
        until_closed(connection)


HEAD = b"POST /predict HTTP/1.1\r\nHost: here\r\n" + b"X: y\r\n" * 500
BODY = b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 5000\r\n\r\n"


SLOW = {
    "head": (b"", HEAD),
    "body": (BODY, b"x" * 5000),
    "second head": (b"GET /v2 HTTP/1.1\r\nHost: here\r\n\r\n", HEAD),
}


@pytest.mark.parametrize("part", SLOW)
def test_slow_clients_are_cut_off(server, part):
    sent, then = SLOW[part]
    with server.connect() as connection:
        connection.sendall(sent)
        assert drip(connection, then, time.monotonic() + 20 * SOON, 0.05)


def test_client_that_says_nothing_is_cut_off(server):
    with server.connect() as connection:
        assert connection.recv(99).startswith(b"HTTP/1.1 408")


def test_control_plain_uvicorn_keeps_slow_clients():
    def is_cut_off(part: str) -> bool:
        sent, then = SLOW[part]
        with plain.connect() as connection:
            connection.sendall(sent)
            return drip(connection, then, time.monotonic() + 2 * SOON, 0.05)

    with plain_uvicorn() as plain, ThreadPoolExecutor(len(SLOW)) as clients:
        assert list(clients.map(is_cut_off, SLOW)) == [False] * len(SLOW)


@pytest.mark.parametrize(
    ("sent", "answers"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n" * 3, [b"200", b"200", b"200"]),
        (b"GET /healthz HTTP/1.0\r\n\r\n", [b"200"]),
        (b"HEAD /readyz HTTP/1.1\r\nHost: here\r\n\r\n", [b"200"]),
        (b"OPTIONS /predict HTTP/1.1\r\nHost: here\r\n\r\n", [b"405"]),
        (b"GET /healthz HTTP/1.1\r\nHost: here\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", [b"200"]),
        (b"GET /nowhere HTTP/1.1\r\nHost: [\r\n\r\n", [b"404"]),
        (b"GET /%ff%00 HTTP/1.1\r\nHost: here\r\n\r\n", [b"404"]),
        (b"GET /predict HTTP/9.9\r\n\r\n", [b"400"]),
        (b"\x16\x03\x01\x02\x00\x01\x00", [b"400"]),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456", [b"400"]),
        (b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", [b"400"]),
        (b"POST /predict HTTP/1.1\r\nContent-Length: -5\r\n\r\n", [b"400"]),
        (b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", [b"400"]),
    ],
)
def test_odd_requests_are_answered_and_never_our_fault(server, sent, answers):
    with server.connect() as connection:
        connection.sendall(sent)
        found = b""
        # Each connection is closed at last: refused, or idle for too long.
        with suppress(ConnectionError):
            while piece := connection.recv(4096):
                found += piece
                if found.count(b"HTTP/1.1 ") == len(answers) and found.endswith((b"}", b"\r\n\r\n", b"received.")):
                    break
    assert re.findall(rb"HTTP/1\.1 (\d+)", found) == answers


def test_others_are_answered_while_slow_clients_wait(server):
    connections = [server.connect() for _ in range(20)]
    for connection in connections:
        connection.sendall(BODY + b"x")
    assert server.predict(image())
    for connection in connections:
        connection.close()


def test_full_queue_gives_answers_and_503_alone(bundle):
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [3, SIDE, SIDE, 1], "data": [0] * 3 * SIDE * SIDE}
    asked = json.dumps({"inputs": [tensor]})
    # Three images wait for a fourth, and there is no place for three more.
    flags = ("--queue", "4", "--max-batch", "4", "--max-wait-ms", "100")
    with serving(bundle, *flags) as server, ThreadPoolExecutor(24) as clients:
        answers = list(clients.map(lambda _: server.ask("POST", INFER, asked), range(96)))
    assert {answer.code for answer in answers} == {200, 503}
    assert all(answer.headers["retry-after"] == "1" for answer in answers if answer.code == 503)


def test_at_sigterm_what_was_accepted_is_answered(bundle):
    with serving(bundle) as server:
        sent, lost = under_load(server, signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert "every request that was accepted is answered" in server.process.stdout.read()
    assert sent > 20
    assert lost == 0


def test_control_sigkill_loses_requests(bundle):
    with serving(bundle) as server:
        sent, lost = under_load(server, signal.SIGKILL)
    assert sent > 20
    assert lost > 0


def test_bundle_whose_golden_images_differ_is_not_ready_and_answers_nothing(tmp_path):
    with serving(linear_bundle(tmp_path / "wrong", wrong=0.1), ready=503) as server:
        assert "golden images" in server.ask("GET", "/readyz").json["error"]
        assert server.ask("GET", "/v2/models/wrong/ready").code == 404
        assert server.ask("GET", "/v2/health/ready").code == 503
        assert server.ask("POST", "/predict", image()).code == 503
        assert server.ask("GET", "/healthz").code == 200


def test_processes_share_the_port_add_up_their_counts_and_are_started_again(bundle):
    with serving(bundle, "--processes", "2") as server:
        until_equal(lambda: children_of(server)[1], 2)
        for _ in range(20):
            server.predict(image())
        until_equal(lambda: predicted(server), 20)
        first, _ = children_of(server)
        os.kill(first[0], signal.SIGKILL)
        until_equal(lambda: (set(children_of(server)[0]) == set(first), children_of(server)[1]), (False, 2))
        server.predict(image())
        until_equal(lambda: predicted(server), 21)
        children, _ = children_of(server)
        assert server.end() == 0
        assert not [child for child in children if Path(f"/proc/{child}").exists()]


def predicted(server) -> int:
    page = server.ask("GET", "/metrics").body.decode()
    found = re.search(r'resnetlab_requests_total\{code="200",route="predict"\} (\S+)', page)
    return int(float(found[1])) if found else 0


def children_of(server) -> tuple[list[int], int]:
    """The processes that serve, and how many of them are ready."""
    listed = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    serving_ones = [int(n) for n in listed if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]
    page = server.ask("GET", "/metrics").body.decode()
    return serving_ones, int(float(re.search(r"^resnetlab_ready_processes (\S+)", page, re.MULTILINE)[1]))


def until_equal(found, wanted) -> None:
    until = time.monotonic() + 30
    while (now := found()) != wanted and time.monotonic() < until:
        time.sleep(0.05)
    assert now == wanted


def test_killed_parent_takes_its_processes_along(bundle):
    with serving(bundle, "--processes", "2") as server:
        children, _ = children_of(server)
        assert len(children) == 2
        server.end(signal.SIGKILL)
        until_equal(lambda: [child for child in children if Path(f"/proc/{child}").exists()], [])


def test_port_that_is_taken_is_one_sentence(server, bundle, resnetlab):
    done = resnetlab("serve", bundle, "--port", server.port)
    assert done.returncode == 5
    assert re.fullmatch(r"error: cannot listen on .* give another --port, or --port 0 for a free one\n", done.stderr)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_format_that_was_not_exported_ends_with_what_to_do(bundle, resnetlab, processes):
    done = resnetlab("serve", bundle, "--port", "0", "--engine", "int8", "--processes", processes)
    assert (done.returncode, "export it again with --to int8" in done.stderr) == (2, True)


def test_folder_that_is_no_bundle_says_how_to_make_one(tmp_path, resnetlab):
    done = resnetlab("serve", tmp_path, "--port", "0")
    assert (done.returncode, "resnetlab export RUN --out FOLDER" in done.stderr) == (4, True)


def test_bundle_of_the_hub_is_fetched(bundle, monkeypatch):
    from resnetlab.core.errors import ConfigError
    from resnetlab.deploy.serve.config import ServeConfig
    from resnetlab.deploy.serve.server import serve

    monkeypatch.setattr("resnetlab.deploy.share.pull", {"me/insects": bundle}.__getitem__)
    with pytest.raises(ConfigError, match="was not exported to int8"):
        serve("hub:me/insects", ServeConfig(port=0, engine="int8"), lambda _: None)


@pytest.mark.parametrize("package", ["onnxruntime", "uvicorn", "httptools", "uvloop", "prometheus_client"])
def test_missing_package_is_one_sentence(bundle, package, monkeypatch):
    from resnetlab.core.errors import MissingExtraError
    from resnetlab.deploy.serve.config import ServeConfig
    from resnetlab.deploy.serve.server import serve

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'resnetlab\[serve\]'"):
        serve(bundle, ServeConfig(port=0), lambda _: None)


@pytest.mark.parametrize(
    "setting",
    [
        {"port": 70000},
        {"max_batch": 0},
        {"queue": 7},
        {"max_body": "lots"},
        {"max_body": "0MB"},
        {"patience": 0},
        {"processes": 0},
        {"engine": "torch"},
    ],
)
def test_settings_that_make_no_server_are_refused(setting):
    from resnetlab.core.errors import ConfigError
    from resnetlab.deploy.serve.config import ServeConfig

    with pytest.raises(ConfigError):
        ServeConfig(**setting)


@pytest.mark.parametrize(("given", "size"), [("1", 1), ("500kB", 500_000), ("10MB", 10_000_000), ("1GB", 10**9)])
def test_sizes_of_a_body(given, size):
    from resnetlab.deploy.serve.config import ServeConfig

    assert ServeConfig(max_body=given).body_bytes == size

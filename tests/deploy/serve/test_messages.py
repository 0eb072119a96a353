"""What a request says, over ASGI, and how an answer goes out."""

import asyncio
from typing import Any

import pytest

from resnetlab.deploy.serve.messages import Answer, ClientGoneError, Message, Request, in_json


def request(*messages: Message, query: str = "", **headers: str) -> Request:
    """A request whose body comes in those messages."""
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope: dict[str, Any] = {"method": "POST", "path": "/predict", "query_string": query.encode(), "headers": given}
    return Request(scope, receive)


def part(content: bytes, more: bool) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def body_of(given: Request) -> tuple[bytes, list[int]]:
    """The body, and the sizes that were told."""
    sizes: list[int] = []
    return asyncio.run(given.body(sizes.append)), sizes


def test_body_in_parts():
    assert body_of(request(part(b"ab", True), part(b"", True), part(b"c", False))) == (b"abc", [2, 0, 1])
    assert body_of(request(part(b"abc", False))) == (b"abc", [3])


def test_client_that_is_gone_gives_no_body():
    with pytest.raises(ClientGoneError):
        body_of(request(part(b"ab", True), {"type": "http.disconnect"}))


def test_body_is_read_no_further_than_it_may_be():
    class TooManyError(Exception):
        pass

    def hold(size: int) -> None:
        if size == 3:
            raise TooManyError

    given = request(part(b"ab", True), part(b"cde", True), part(b"never asked for", False))
    with pytest.raises(TooManyError):
        asyncio.run(given.body(hold))
    assert given.unread


@pytest.mark.parametrize(
    ("headers", "length", "unread"),
    [
        ({}, 0, False),
        ({"content_length": "0"}, 0, False),
        ({"content_length": "12"}, 12, True),
        ({"transfer_encoding": "chunked"}, 0, True),
        ({"content_length": "x"}, 0, False),
    ],
)
def test_head_says_whether_a_body_follows(headers: dict[str, str], length: int, unread: bool):
    given = request(part(b"x" * 12, False), **headers)
    assert (given.length, given.unread) == (length, unread)
    body_of(given)
    assert not given.unread


def test_headers_and_parameters():
    given = request(query="top=3&top=7&empty=&name=a%20b", content_type="image/png")
    assert (given.header("Content-Type"), given.header("other"), given.header("other", "x")) == ("image/png", "", "x")
    found = [given.parameter(name) for name in ("top", "empty", "name", "missing")]
    assert found == ["7", "", "a b", None]
    assert request().parameter("top") is None


@pytest.mark.parametrize("close", [False, True])
def test_answer_goes_out_as_head_and_body(close: bool):
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(in_json({"é": 0.5}, 503, {"Retry-After": "1"}).send(send, close=close))
    head, body = sent
    assert body == {"type": "http.response.body", "body": '{"é":0.5}'.encode()}
    assert (head["type"], head["status"]) == ("http.response.start", 503)
    expected = [(b"content-length", b"10"), (b"content-type", b"application/json"), (b"retry-after", b"1")]
    assert head["headers"] == expected + [(b"connection", b"close")] * close


def test_what_is_no_number_is_never_sent():
    with pytest.raises(ValueError, match="not JSON compliant"):
        in_json({"probability": float("nan")})
    assert Answer(b"x").code == 200

"""Requests and answers over ASGI, as little of it as this server needs. https://asgi.readthedocs.io/en/latest/specs/www.html

Small networks answer in less time than a framework takes around them.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON, HTML, TEXT = "application/json", "text/html; charset=utf-8", "text/plain; version=0.0.4; charset=utf-8"
BINARY = "application/octet-stream"
encoded = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class RefusalError(Exception):
    """A request that is answered with a code that is no success, and in JSON why."""

    def __init__(self, code: int, why: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(why)
        self.code, self.headers = code, headers or {}


class ClientGoneError(Exception):
    """The client hung up, or was cut off because it was too slow: nobody reads an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    content: bytes
    media_type: str = JSON
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    async def send(self, send: Send, *, close: bool) -> None:
        """Send it; with ``close`` the connection ends behind it."""
        headers = [
            (b"content-length", b"%d" % len(self.content)),
            (b"content-type", self.media_type.encode()),
            *((name.lower().encode(), value.encode()) for name, value in self.headers.items()),
        ]
        if close:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": self.code, "headers": headers})
        await send({"type": "http.response.body", "body": self.content})


def in_json(content: Any, code: int = 200, headers: dict[str, str] | None = None) -> Answer:
    """An answer of plain data."""
    return Answer(encoded(content).encode(), JSON, code, headers or {})


class Request:
    """A request whose head is here and whose body comes when it is asked for."""

    def __init__(self, scope: Message, receive: Receive) -> None:
        self._scope, self._receive = scope, receive
        # ASGI gives the names in lower case.
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        length = self._headers.get(b"content-length", b"0")
        self.length = int(length) if length.isdigit() else 0
        """Bytes of the body by the head; 0 where it does not say."""
        self.unread = self.length > 0 or b"transfer-encoding" in self._headers
        """Whether some of the body may not have been read."""

    def header(self, name: str, default: str = "") -> str:
        """A header, or the ``default``."""
        found = self._headers.get(name.lower().encode())
        return default if found is None else found.decode("latin-1")

    def parameter(self, name: str) -> str | None:
        """The last value of a parameter behind the question mark; None without it."""
        query: bytes = self._scope["query_string"]
        found = parse_qs(query.decode("latin-1"), keep_blank_values=True).get(name) if query else None
        return found[-1] if found else None

    async def body(self, hold: Callable[[int], None]) -> bytes:
        """The body; ``hold`` is told of the bytes of each part, and raises where they are too many.

        Raises ``ClientGoneError`` where it does not come to its end.
        """
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part: bytes = message.get("body", b"")
            self.unread = bool(message.get("more_body"))
            hold(len(part))
            parts.append(part)
            if not self.unread:
                return b"".join(parts) if len(parts) > 1 else part

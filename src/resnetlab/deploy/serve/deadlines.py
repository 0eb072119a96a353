"""What uvicorn leaves to a proxy: clients that send a request too slowly, or a head without end, are cut off."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import TimerHandle, Transport

    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD = 64 * 1024
MOST_HEADERS = 200
CHUNKED = 8
"""A body in chunks of one byte takes six bytes on the line for each."""


def impatient(seconds: float, most_body: int) -> "type[HttpToolsProtocol]":
    """uvicorn's protocol with two deadlines of so many seconds: from the connection, or the first byte of a request
    that follows another, to the end of the head; and from there to the end of the body. The answer is 408 and the end
    of the connection.

    A head above 64 KiB is answered with 431; a request of more than 200 headers and trailers with 400, and one that is
    padded to several times ``most_body`` with 413.
    """
    import httptools
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

    class Impatient(HttpToolsProtocol):
        deadline: "TimerHandle | None" = None
        in_head = True
        received = 0

        def connection_made(self, transport: "Transport") -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.begin()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.end()

        def data_received(self, data: bytes) -> None:
            self.received += len(data)
            super().data_received(data)
            if self.deadline is None or self.transport.is_closing():
                return
            if self.in_head and self.received > MOST_HEAD:
                self.refuse(431)
            elif self.received > MOST_HEAD + CHUNKED * most_body:
                self.refuse(413)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            if self.deadline is None:
                self.begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            super().on_header(name, value)
            if len(self.headers) > MOST_HEADERS:
                raise httptools.HttpParserError("too many headers")

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self.begin()
            self.in_head = False

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self.end()
            self.in_head = True
            self.received = 0

        def begin(self) -> None:
            self.end()
            self.deadline = self.loop.call_later(seconds, self.expire)

        def end(self) -> None:
            if self.deadline is not None:
                self.deadline.cancel()
                self.deadline = None

        def expire(self) -> None:
            self.deadline = None
            if self.transport.is_closing():
                return
            if self.pipeline or (self.in_head and self.cycle is not None and not self.cycle.response_complete):
                # The wait is for our answer to the request before this one, not for the client.
                self.begin()
            else:
                self.refuse(408)

        def refuse(self, status: int) -> None:
            """Answer, unless an answer has begun, and close the connection."""
            if self.in_head or not self.cycle.response_started:
                self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
            if not self.in_head:
                # Whoever reads the body learns that no more of it comes.
                self.cycle.disconnected = True
                self.cycle.message_event.set()

    return Impatient

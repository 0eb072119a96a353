"""Who can ask: open connections, and those that are not accepted yet, however many there are."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import uvloop

from resnetlab.deploy.serve.clients import BACKLOG, Clients


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as made:
        yield made


def test_others_can_ask_on_open_connections_and_on_those_that_arrive(listener: socket.socket):
    connections: list[int] = []
    clients = Clients(connections, listener)
    assert not clients.can_ask(0)
    connections += [1, 2, 3]
    assert [clients.can_ask(waiting) for waiting in (2, 3, 4)] == [True, False, False]
    with socket.create_connection(listener.getsockname()):
        assert clients.arrive
        assert clients.can_ask(3)
        listener.accept()[0].close()
        assert not clients.can_ask(3)


@pytest.mark.parametrize("waits", [True, False], ids=["all", "control"])
def test_all_that_arrived_are_accepted_and_read(listener: socket.socket, waits: bool):
    """By a loop that accepts one a turn. Control: without waiting for them the last are not."""
    count, got, opened = 50, [], []

    class Reader(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            opened.append(transport)

        def data_received(self, data: bytes) -> None:
            got.append(data)

    async def read() -> int:
        server = await asyncio.get_running_loop().create_server(Reader, sock=listener)
        if waits:
            await Clients([], listener).accept_all()
        read = len(got)
        server.close()
        for transport in opened:
            transport.close()
        await server.wait_closed()
        return read

    with ExitStack() as stack:
        for number in range(count):
            stack.enter_context(socket.create_connection(listener.getsockname())).sendall(b"%d" % number)
        assert (uvloop.run(read()) == count) == waits

"""Who can ask a server at a time."""

import asyncio
import select
from collections.abc import Collection
from socket import socket

BACKLOG = 1024
"""Connections that wait to be accepted, at most."""
READING = 4
"""Turns of the event loop in which what came on a connection is read."""


class Clients:
    """Those of the open ``connections``, and those that the ``listener`` has yet to accept."""

    def __init__(self, connections: Collection[object], listener: socket) -> None:
        self._connections, self._arrivals = connections, select.poll()
        self._arrivals.register(listener, select.POLLIN)

    @property
    def arrive(self) -> bool:
        """Whether a connection waits to be accepted."""
        return bool(self._arrivals.poll(0))

    def can_ask(self, waiting: int) -> bool:
        """Whether others than so many, who wait for an answer, can ask."""
        return waiting < len(self._connections) or self.arrive

    async def accept_all(self) -> None:
        """Return once no connection waits to be accepted any more, and what came on the last one is read.

        uvloop accepts one in each of its turns, and few turns pass in a second where others have the processor.
        """
        for _ in range(BACKLOG):
            if not self.arrive:
                break
            await asyncio.sleep(0)
        for _ in range(READING):
            await asyncio.sleep(0)

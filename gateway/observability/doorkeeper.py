"""Bounds what clients cost at an HTTP port: connections, and the time that each may take."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable

CONNECTIONS = 64
REQUEST_SECONDS = 10.0
"""From a connection, or from its next request's first byte, to the answer."""
IDLE_SECONDS = 75.0
"""Between two requests of a connection: more than the interval of any scrape."""
_SHARE = 8
"""Of the process's descriptors one in so many, at most: the others are for broker, databases and the spool."""


class Doorkeeper:
    """Makes the protocols of a server, and closes connections: the slow ones, and the oldest where there are too many.

    The oldest, not the newest: an answer is there at once, so an old connection waits for nothing of ours.

    Args:
        make: a protocol for one connection.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol], *, most: int | None = None) -> None:
        self._make, self._most = make, most or allowed()
        self._inside: dict[asyncio.Protocol, Guarded] = {}

    def __call__(self) -> Guarded:
        """The protocol for a new connection."""
        return Guarded(self._make(), self)

    def entered(self, guarded: Guarded) -> None:
        """A connection is there; another has to go when there are too many."""
        if len(self._inside) >= self._most:
            next(iter(self._inside.values())).close()
        self._inside[guarded.inner] = guarded

    def left(self, guarded: Guarded) -> None:
        """A connection is closed."""
        self._inside.pop(guarded.inner, None)

    def answered(self, inner: asyncio.Protocol) -> None:
        """A request was answered on the connection of this protocol."""
        if (guarded := self._inside.get(inner)) is not None:
            guarded.answered()


class Guarded(asyncio.Protocol):
    """A protocol with a deadline; passes everything on."""

    def __init__(self, inner: asyncio.Protocol, keeper: Doorkeeper) -> None:
        self.inner, self._keeper = inner, keeper
        self._transport: asyncio.BaseTransport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in."""
        self._transport = transport
        self._within(REQUEST_SECONDS)
        self._keeper.entered(self)
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """A part of a request."""
        if self._waits:
            self._waits = False
            self._within(REQUEST_SECONDS)
        self.inner.data_received(data)

    def answered(self) -> None:
        """The next request has time."""
        self._waits = True
        self._within(IDLE_SECONDS)

    def close(self) -> None:
        """At once; nothing is waited for."""
        self._keeper.left(self)
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()

    def eof_received(self) -> bool | None:
        """The other side sends nothing more."""
        return self.inner.eof_received()

    def pause_writing(self) -> None:
        """The other side does not read."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """The other side reads again."""
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._keeper.left(self)
        self.inner.connection_lost(exc)

    def _within(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.close)


def allowed() -> int:
    """How many connections: ``CONNECTIONS``, or less where the process may have few descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if soft == resource.RLIM_INFINITY else max(4, min(CONNECTIONS, soft // _SHARE))

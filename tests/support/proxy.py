"""A TCP proxy in a thread of its own, whose connections can be cut, muted and delayed: a network that fails.

For daemons in processes of their own; ``fake_broker.Proxy`` is for sources in the test's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
READ = 65_536
Forward = Callable[[bytes], Awaitable[None]]


class Leg:
    """One connection through the proxy, from both ends.

    Attributes:
        mute: nothing is passed on any more, and no end is told: half-open.
    """

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._client, self._server = client, server
        self.mute = False

    async def from_client(self, read: bytes) -> None:
        """Pass on what the client said."""
        await self.to_server(read)

    async def from_server(self, read: bytes) -> None:
        """Pass on what the server said."""
        await self.to_client(read)

    async def to_server(self, read: bytes) -> None:
        """Write to the server."""
        self._server.write(read)
        await self._server.drain()

    async def to_client(self, read: bytes) -> None:
        """Write to the client."""
        self._client.write(read)
        await self._client.drain()

    def cut(self) -> None:
        """End both connections at once (RST)."""
        for end in (self._client, self._server):
            end.transport.abort()


class Proxy:
    """In front of a server on loopback; open while the ``with`` block lasts.

    Args:
        target: the server's port.
        host: address to listen at.

    Attributes:
        port: where clients connect to.
        refusing: new connections are closed at once.
        delay: seconds that all bytes take, in either direction.
    """

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        self._target, self.host = target, host
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._legs: set[Leg] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.refusing = False
        self.delay = 0.0

    def leg(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> Leg:
        """What passes the bytes of a new connection on."""
        return Leg(client, server)

    def cut(self) -> None:
        """Break all connections (RST)."""

        async def cut() -> None:
            for leg in list(self._legs):
                leg.cut()

        self._wait_for(cut())

    def mute(self) -> None:
        """Half-open for ever: all connections of now stay, and nothing is passed on; new ones work."""
        for leg in list(self._legs):
            leg.mute = True

    def __enter__(self) -> Self:
        self._thread.start()
        self._listener = self._wait_for(asyncio.start_server(self._serve, self.host, 0))
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._wait_for(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._loop.shutdown_asyncgens()

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                if not self.refusing:
                    await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on in both directions until one end closes; then both are closed."""
        from_server, server = await asyncio.open_connection("127.0.0.1", self._target)
        leg = self.leg(writer, server)
        self._legs.add(leg)
        both = [
            asyncio.ensure_future(self._pump(leg, reader, leg.from_client)),
            asyncio.ensure_future(self._pump(leg, from_server, leg.from_server)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            leg.cut()  # on a line that is silent nobody would ever take the rest
            raise
        finally:
            self._legs.discard(leg)
            for pump in both:
                pump.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            await _hang_up(writer, server)

    async def _pump(self, leg: Leg, reader: asyncio.StreamReader, forward: Forward) -> None:
        """Pass on in order, each piece ``delay`` seconds after it came."""
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=1000)
        forwarding = asyncio.create_task(self._forward(due, forward))
        try:
            while read := await reader.read(READ):
                if not leg.mute:
                    await due.put((self._loop.time() + self.delay, read))
            await due.put((0.0, b""))
            await forwarding
        finally:
            forwarding.cancel()
            await asyncio.gather(forwarding, return_exceptions=True)

    async def _forward(self, due: asyncio.Queue[tuple[float, bytes]], forward: Forward) -> None:
        while True:
            moment, read = await due.get()
            if not read:
                return
            await asyncio.sleep(max(moment - self._loop.time(), 0))
            await forward(read)


async def _hang_up(*ends: asyncio.StreamWriter) -> None:
    """Close both, when what was written has gone; cancelled, at once."""
    for end in ends:
        end.close()
    try:
        for end in ends:
            with contextlib.suppress(OSError):
                await end.wait_closed()
    finally:
        for end in ends:
            end.transport.abort()

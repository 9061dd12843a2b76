"""A way to a database on which the answer to a commit can get lost."""

from __future__ import annotations

import asyncio
import urllib.parse
from typing import Self

COMMIT = b"COMMIT;\0"
COPY_DONE = b"c\0\0\0\x04"
"""What the client says last of a transaction, and of a COPY without one."""


class Losing:
    """A TCP proxy. Once ``after`` has passed to the server, nothing comes back.

    Attributes:
        dsn: the database by way of this.
        after: the words after which answers are lost; None: never.
        lost: whether an answer was lost.
    """

    def __init__(self, dsn: str) -> None:
        self._there = urllib.parse.urlsplit(dsn)
        self.dsn = ""
        self.after: bytes | None = None
        self.lost = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        login = self._there.netloc.rpartition("@")[0]
        self.dsn = self._there._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break all connections, and lose nothing more."""
        self.after = None
        self.lost.clear()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(
            self._there.hostname, self._there.port or 5432
        )
        self._writers += [writer, there_writer]
        for work in (self._forth(reader, there_writer), self._back(there_reader, writer)):
            task = asyncio.create_task(work)
            self._tasks.add(task)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(1 << 16):
            if self.after is not None and self.after in said:
                self.lost.set()
            writer.write(said)
        writer.close()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while said := await reader.read(1 << 16):
            if not self.lost.is_set():
                writer.write(said)
        writer.close()

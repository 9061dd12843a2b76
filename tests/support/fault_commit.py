"""A proxy that speaks enough of PostgreSQL's protocol to lose the answer to a commit.

A commit is COMMIT, or the end of a COPY outside of a transaction. The answer is lost in three ways: the server has
committed and its answer is dropped; the connection breaks while the server commits; the commit never gets there.
Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats". Clients connect without TLS.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections import Counter
from collections.abc import Iterator

from tests.support.proxy import Leg, Proxy


class Loss(enum.StrEnum):
    """How the answer to a commit is lost."""

    ANSWER_DROPPED = "answer dropped"
    CUT_MEANWHILE = "cut meanwhile"
    NEVER_SENT = "never sent"


class PostgresMessageReader:
    """Cuts a stream of PostgreSQL messages: type, and the whole message; the type of a startup is ``b""``."""

    def __init__(self, *, untyped: bool) -> None:
        self._buffer = b""
        self._untyped = untyped

    def feed(self, read: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All messages that are complete now."""
        self._buffer += read
        while True:
            head = 0 if self._untyped else 1
            if len(self._buffer) < head + 4:
                return
            length = head + int.from_bytes(self._buffer[head : head + 4], "big")
            if len(self._buffer) < length:
                return
            message, self._buffer = self._buffer[:length], self._buffer[length:]
            yield message[:head], message
            self._untyped = False


class CommitLeg(Leg):
    """A session whose commits may get lost."""

    def __init__(
        self, proxy: LossyCommits, client: asyncio.StreamWriter, server: asyncio.StreamWriter
    ) -> None:
        super().__init__(client, server)
        self._lossy = proxy
        self._asked, self._answered = (
            PostgresMessageReader(untyped=True),
            PostgresMessageReader(untyped=False),
        )
        self._in_transaction = False
        self._losing: Loss | None = None

    async def from_client(self, read: bytes) -> None:
        """Pass it on, but for a commit that is to be lost."""
        for kind, message in self._asked.feed(read):
            if self._commits(kind, message):
                self._losing = self._lossy.choose()
            if self._losing is Loss.NEVER_SENT:
                self.cut()
                return
            await self.to_server(message)
            if self._losing is Loss.CUT_MEANWHILE:
                self.cut()
                return

    async def from_server(self, read: bytes) -> None:
        """Pass it on, but for the answer that is to be lost."""
        for kind, message in self._answered.feed(read):
            if kind == b"Z":
                self._in_transaction = message[-1:] != b"I"
            if self._losing is None:
                await self.to_client(message)
            elif kind == b"Z":  # the server has done it
                self.cut()
                return

    def _commits(self, kind: bytes, message: bytes) -> bool:
        copied = kind == b"c" and not self._in_transaction
        return copied or (kind == b"Q" and message[5:].upper().startswith(b"COMMIT"))


class LossyCommits(Proxy):
    """In front of a PostgreSQL; loses some commits while :attr:`share` is above 0.

    Attributes:
        share: of the commits that are lost.
        lost: how many were, by how.
    """

    def __init__(self, target: int, chance: random.Random) -> None:
        super().__init__(target)
        self._chance = chance
        self.share = 0.0
        self.lost: Counter[Loss] = Counter()

    def leg(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> Leg:
        """A session."""
        return CommitLeg(self, client, server)

    def choose(self) -> Loss | None:
        """Whether, and how, the commit that is asked for now gets lost."""
        if self._chance.random() >= self.share:
            return None
        loss = self._chance.choice(list(Loss))
        self.lost[loss] += 1
        return loss

"""Sessions without a daemon: kept in memory, or in a ledger's database."""

from __future__ import annotations

import os
from collections.abc import Sequence

from gateway.messages import Session
from gateway.sessions.redeliveries import Redeliveries
from gateway.sessions.tracking import Sessions, SessionState
from gateway.writer.ledger import Ledger


class MemoryStore:
    """Keeps a state as long as the test does; satisfies :class:`gateway.sessions.tracking.Store`."""

    def __init__(self, state: SessionState | None = None) -> None:
        self.state = state

    async def load(self) -> SessionState | None:
        """What was saved last."""
        return self.state

    async def save(self, state: SessionState) -> None:
        """Keep it."""
        self.state = state


def sessions_in(store: MemoryStore | None = None) -> Sessions:
    """The sessions of a client whose state is kept there."""
    return Sessions("gateway", [store or MemoryStore()], Redeliveries())


def forget(_numbers: Sequence[int], _digests: Sequence[bytes]) -> None:
    """For a ledger that nobody asks by delivery number."""


def a_ledger(client_id: str, sessions: Sessions | None = None) -> Ledger:
    """A ledger of a client in a session of its own, or in these."""
    return Ledger(client_id, sessions or sessions_in(), forget)


def a_session(first: int = 1) -> Session:
    """A session that began in this process, with this packet id."""
    session = Session(os.urandom(16))
    session.first = first
    return session
